"""POST /v1/register: two files in, the result out; made for curl."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from retreg.errors import InputError
from retreg_server.registration.options import parsed_option
from retreg_server.serving.errors import ApiError
from retreg_server.serving.http.forms import Form, FormLimits, read_form
from retreg_server.serving.jobs import Job
from retreg_server.serving.middleware.clients import client_name
from retreg_server.serving.routes.responses import TheService, result_response
from retreg_server.serving.service import Service
from retreg_server.serving.workers.messages import SharedImage

router = APIRouter(prefix="/v1/register", tags=["registrations"])

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".nrrd", ".nii", ".nii.gz", ".mha",
            ".mgz", ".mgh", ".dcm")  # fmt: skip
LOOK_FOR_CLIENT_S = 0.25
MAX_TEXT_BYTES = 200
LIMITS = FormLimits(fields=40, field_bytes=MAX_TEXT_BYTES)
ROLES = ("fixed", "moving")
FRAMES = ("frame", "fixed_frame", "moving_frame")
Found = TypeVar("Found")
FILES = ("fixed", "moving", "files", "file", "label")


def form_schema(*names: str) -> dict[str, Any]:
    """What the OpenAPI document says of a form with these fields."""
    text = {"type": "string", "maxLength": MAX_TEXT_BYTES}
    file = {"type": "string", "format": "binary"}
    fields = {name: file if name in FILES else text for name in names}
    schema = {"type": "object", "properties": fields, "additionalProperties": text}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


@router.post("", openapi_extra=form_schema(*ROLES, "model"))
async def register(request: Request, service: TheService) -> Response:
    """Register two files and answer with the result; other fields are options of the model.

    The registration is cancelled when the client goes away.
    """
    service.jobs.line.check(client_name())  # before all of it is sent
    form = await read_form(request, LIMITS, service.account)
    with service.jobs.place() as place:
        reading = uploaded_images(service, form, ROLES)
        fixed, moving = await while_client_waits(request, reading)
        texts = {name: value for name, value in form.fields.items() if name not in FRAMES}
        model = await service.model(texts.pop("model", None), fixed, moving)
        options = {name: parsed_option(model, name, text) for name, text in texts.items()}
        job = await service.submit(fixed, moving, model, options, place)
    await wait_for_end(job, request, service)
    return result_response(job)


async def wait_for_end(job: Job, request: Request, service: Service) -> None:
    """Return when the job has ended; it is cancelled when the client goes away."""
    try:
        status = job.status
        while not status.has_ended and not await request.is_disconnected():
            status = await job.next_status(status, LOOK_FOR_CLIENT_S)
    finally:
        if not job.status.has_ended:
            await service.jobs.cancel(job)


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
    """The images in the files of those names, read in one turn. Raises as uploaded_image."""
    nbytes = sum(len(file.content) for file in form.files.values())
    async with service.reading(nbytes):
        return [await uploaded_image(service, form, role) for role in roles]


async def uploaded_image(service: Service, form: Form, role: str) -> SharedImage:
    """The image in the file of that name in a form. Raises InputError or ApiError 415."""
    sent = form.files.get(role)
    if sent is None:
        raise InputError(f"The form has no file {role!r}; send one in each field that is needed.")
    name = f"{role}{_suffix(sent.filename, role)}"
    frame = _frame(form, f"{role}_frame") or _frame(form, "frame")
    return await service.read(sent.content, name, frame)


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
