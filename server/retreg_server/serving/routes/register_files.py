"""POST /v1/register: two images as files in, the result out; made for curl."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal, get_args

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from retreg import wire
from retreg.errors import InputError
from retreg_server.registration.options import parsed_option
from retreg_server.serving.access.caller import caller
from retreg_server.serving.errors import ApiError
from retreg_server.serving.jobs import Job
from retreg_server.serving.routes.answers import Result
from retreg_server.serving.routes.responses import (
    BINARY,
    VERDICT_HEADER,
    ImageFormat,
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
MAX_FILES = 4000  # of both series
LOOK_FOR_CLIENT_S = 0.25
MAX_OPTIONS = 40
MAX_TEXT_BYTES = 1024
ROLES = ("fixed", "moving")
FRAMES = ("frame", "fixed_frame", "moving_frame")
MASKS = ("fixed_mask", "moving_mask")
FILES = ("files", "file", "label", *MASKS)
SERIES = ("fixed", "moving", "image")


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
    async with request.form(
        max_files=MAX_FILES, max_fields=MAX_OPTIONS, max_part_size=MAX_TEXT_BYTES
    ) as form:
        fixed, moving = [await _counted_image(service, form, role) for role in ROLES]
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
    texts = {name: value for name, value in texts.items() if name not in FRAMES}
    model = await service.model(texts.pop("model", None), fixed, moving)
    options = {name: parsed_option(model, name, text) for name, text in texts.items()}
    job = await service.submit(fixed, moving, model, options)
    await wait_for_end(job, request, service)
    for image in (fixed, moving):  # so that more can be asked for under the id
        service.keep(image)
    return await _delivered(service, job, (fixed, moving), answer, file)


async def _delivered(
    service: Service, job: Job, images: tuple[SharedImage, SharedImage], answer: str, file: str
) -> Response:
    """The answer that was asked for, with the id and the verdict in its headers."""
    result, suffix = bytes(result_response(job).body), file.partition(".")[2]
    file = job.file_name(answer, suffix)
    if answer == "result":
        text = b'{"id":"%s",' % job.id.encode() + result.removeprefix(b"{")
        response = Response(text, media_type="application/json")
    elif answer == "transform":
        response = download(await service.transform_file(job, suffix), file)
    elif answer == "warped":
        response = download(await service.warped_file(job, suffix), file)
    else:
        response = download(await service.outputs_file(job, *images), file)
    response.headers["Location"] = f"/v1/registrations/{job.id}"
    response.headers[VERDICT_HEADER] = str(wire.loads(result)["quality"]["verdict"])
    return response


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


async def uploaded_image(service: Service, form: FormData, role: str) -> SharedImage:
    """The image in the files of that name in a form. Raises InputError or ApiError 415."""
    uploads = [each for each in form.getlist(role) if isinstance(each, UploadFile)]
    if not uploads:
        raise InputError(f"The form has no file {role!r}; send one in each field that is needed.")
    suffixes = {_suffix(upload.filename or "", role) for upload in uploads}
    if len(uploads) > 1 and suffixes != {".dcm"}:
        raise InputError(
            f"There are {len(uploads)} files {role!r}, but only the DICOM files of a series may be "
            "several; send one file."
        )
    name = f"{role}{suffixes.pop()}"
    frame = _frame(form, f"{role}_frame") or _frame(form, "frame")
    sizes = [upload.size or 0 for upload in uploads] if len(uploads) > 1 else []
    return await service.read(await asyncio.to_thread(_content, uploads), name, frame, sizes)


async def _counted_image(service: Service, form: FormData, role: str) -> SharedImage:
    """The image in the file of that name in a form, with its mask if there is one."""
    image = await uploaded_image(service, form, role)
    if f"{role}_mask" not in form:
        return image
    mask = await uploaded_image(service, form, f"{role}_mask")
    return await service.masked(image, mask, role)


def _frame(form: FormData, name: str) -> int | None:
    """The number of the frame to take, if the form has that field. Raises InputError."""
    text = form.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or not text.isdecimal() or int(text) < 1:
        raise InputError(f"The field {name!r} is no number of a frame; 1 or more was expected.")
    return int(text)


def _content(uploads: Sequence[UploadFile]) -> SharedBuffer:
    """The files one after the other."""
    buffer, start = SharedBuffer(sum(upload.size or 0 for upload in uploads)), 0
    for upload in uploads:
        upload.file.seek(0)
        end = start + (upload.size or 0)
        upload.file.readinto(buffer.view[start:end])  # type: ignore[attr-defined]
        start = end
    return buffer


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
