"""POST /v1/register: two images as files in, the result out; made for curl."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Literal, TypeVar, get_args

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from retreg import wire
from retreg.errors import InputError
from retreg_server.registration.options import parsed_option
from retreg_server.serving.access.caller import caller
from retreg_server.serving.errors import ApiError
from retreg_server.serving.http.forms import Form, FormLimits, read_form
from retreg_server.serving.jobs import Job
from retreg_server.serving.routes.answers import Result
from retreg_server.serving.routes.responses import (
    BINARY,
    VERDICT_HEADER,
    ImageFormat,
    LargeResponse,
    TheService,
    TransformFormat,
    content,
    download,
    result_response,
)
from retreg_server.serving.service import Service
from retreg_server.serving.workers.messages import SharedBuffer, SharedImage

router = APIRouter(prefix="/v1/register", tags=["registrations"])

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".nrrd", ".nii", ".nii.gz", ".mha",
            ".mgz", ".mgh", ".dcm", ".zip")  # fmt: skip
LOOK_FOR_CLIENT_S = 0.25
MAX_TEXT_BYTES = 1024
LIMITS = FormLimits(fields=40, field_bytes=MAX_TEXT_BYTES)
ROLES = ("fixed", "moving")
FRAMES = ("frame", "fixed_frame", "moving_frame")
MASKS = ("fixed_mask", "moving_mask")
FILES = ("files", "file", "label", *MASKS)
SERIES = ("fixed", "moving", "image")
Found = TypeVar("Found")


def form_schema(*names: str) -> dict[str, Any]:
    """What the OpenAPI document says of a form with these fields."""
    text = {"type": "string", "maxLength": MAX_TEXT_BYTES}
    file = {"type": "string", "format": "binary"}
    several = {"type": "array", "items": file}
    kinds = {**dict.fromkeys(FILES, file), **dict.fromkeys(SERIES, several)}
    fields = {name: kinds.get(name, text) for name in names}
    schema = {"type": "object", "properties": fields, "additionalProperties": text}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "",
    response_model=Result,
    responses=content(BINARY),
    openapi_extra=form_schema(*ROLES, *MASKS, "model"),
)
async def register(
    request: Request,
    service: TheService,
    answer: Literal["result", "transform", "warped", "zip"] = "result",
    format: TransformFormat | ImageFormat | None = None,
) -> Response:
    """Register two images and answer with the result; other fields are options of the model.

    An image is a file, the files of a DICOM series in several fields of that name, or a zip of
    them. Where the files fixed_mask and moving_mask, if they are sent, are 0, their image does not
    count. The answer is the result with its id, or as a file the transform, the moving image on the
    fixed grid, or a zip of all that `retreg register` writes. The registration is cancelled when
    the client goes away.
    """
    caller().require("register")
    file = _file_name(answer, format)
    job, images = await _ordered(request, service)
    await wait_for_end(job, request, service)
    for image in images:  # so that more can be asked for under the id
        service.keep(image)
    return await _delivered(service, job, images, answer, file)


async def _delivered(
    service: Service, job: Job, images: tuple[SharedImage, SharedImage], answer: str, file: str
) -> Response:
    """The answer that was asked for, with the id and the verdict in its headers."""
    response, suffix = result_response(job), file.partition(".")[2]
    file = job.file_name(answer, suffix)
    if answer == "result":
        begun = SharedBuffer.of(b'{"id":"%s",' % job.id.encode())
        rest = SharedBuffer.around(memoryview(job.status.result)[1:])  # without its bracket
        response = LargeResponse([begun, rest], "application/json")
    elif answer == "transform":
        response = download(await service.transform_file(job, suffix), file)
    elif answer == "warped":
        response = download(await service.warped_file(job, suffix), file)
    else:
        response = download(await service.outputs_file(job, *images), file)
    response.headers["Location"] = f"/v1/registrations/{job.id}"
    response.headers[VERDICT_HEADER] = await asyncio.to_thread(_verdict, job.status.result)
    return response


def _verdict(result: bytes) -> str:
    return str(wire.loads(result)["quality"]["verdict"])


def _file_name(answer: str, format: str | None) -> str:
    """Under which an answer is kept. Raises InputError when it does not exist in that format."""
    known = {"transform": get_args(TransformFormat), "warped": get_args(ImageFormat),
             "zip": ("zip",), "result": ("json",)}[answer]  # fmt: skip
    if format is not None and format not in known:
        raise InputError(f"The {answer} is not written as {format}; use {' or '.join(known)}.")
    return f"{answer}.{format or known[0]}"


async def wait_for_end(job: Job, request: Request, service: Service) -> None:
    """Return when the job has ended; it is cancelled when the client goes away."""
    try:
        status = job.status
        while not status.has_ended and not await request.is_disconnected():
            status = await job.next_status(status, LOOK_FOR_CLIENT_S)
    finally:
        if not job.status.has_ended:
            await service.jobs.cancel(job)


async def _ordered(
    request: Request, service: Service
) -> tuple[Job, tuple[SharedImage, SharedImage]]:
    """A job for what a form asks for, and its images."""
    service.jobs.check()  # before all of it is sent
    form = await read_form(request, LIMITS, service.account)
    with service.jobs.place() as place:
        fixed, moving = await while_client_waits(request, _counted_images(service, form))
        texts = {name: value for name, value in form.fields.items() if name not in FRAMES}
        model = await service.model(texts.pop("model", None), fixed, moving)
        options = {name: parsed_option(model, name, text) for name, text in texts.items()}
        return await service.submit(fixed, moving, model, options, turn=place), (fixed, moving)


async def while_client_waits(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """What the work returns; it is cancelled when the client goes away. Raises ClientDisconnect."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_FOR_CLIENT_S)
            if not task.done() and await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()


async def uploaded_images(
    service: Service, form: Form, roles: Sequence[str]
) -> list[SharedImage]:
    """The images in the files of those names, read in one turn. Raises InputError or ApiError."""
    nbytes = sum(len(sent.content) for sent in form.files.values())
    async with service.reading(nbytes):
        return [await _uploaded_image(service, form, role) for role in roles]


async def _uploaded_image(service: Service, form: Form, role: str) -> SharedImage:
    """The image in the files of that name. Raises InputError or ApiError 415."""
    sent = form.files.get(role)
    if sent is None:
        raise InputError(f"The form has no file {role!r}; send one in each field that is needed.")
    suffixes = {_suffix(name, role) for name in sent.names}
    if len(sent.sizes) > 1 and suffixes != {".dcm"}:
        raise InputError(
            f"There are {len(sent.sizes)} files {role!r}, but only the DICOM files of a series may "
            "be several; send one file."
        )
    name = f"{role}{suffixes.pop()}"
    frame = _frame(form, f"{role}_frame") or _frame(form, "frame")
    return await service.read(sent.content, name, frame, sent.sizes if len(sent.sizes) > 1 else ())


async def _counted_images(service: Service, form: Form) -> list[SharedImage]:
    """The fixed and the moving image, each with its mask if there is one."""
    sent = [role for role in (*ROLES, *MASKS) if role in (*ROLES, *form.files)]
    images = dict(zip(sent, await uploaded_images(service, form, sent), strict=True))
    for role, name in zip(ROLES, MASKS, strict=True):
        if name in images:
            images[role] = await service.masked(images[role], images[name], role)
    return [images[role] for role in ROLES]


def _frame(form: Form, name: str) -> int | None:
    """The number of the frame to take, if the form has that field. Raises InputError."""
    text = form.fields.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"The field {name!r} is no number of a frame; 1 or more was expected.")
    return int(text)


def _suffix(filename: str, role: str) -> str:
    """The ending of a client's file name, if it is one of a supported format."""
    name = filename.lower()
    matching = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    if matching:
        return max(matching, key=len)
    if "." not in name:
        return ".dcm"  # DICOM files often have no ending
    raise ApiError(
        415,
        "bad-file",
        f"The {role} file is of a kind that is not accepted; use {', '.join(SUFFIXES)}.",
    )
