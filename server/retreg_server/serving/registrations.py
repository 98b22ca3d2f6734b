"""Registrations as jobs: order, watch, fetch, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from retreg import wire
from retreg.image import Image
from retreg_server.serving.errors import ApiError, json_response
from retreg_server.serving.images import ADDRESS_PATTERN, unknown_image
from retreg_server.serving.jobs import Job, Status
from retreg_server.serving.service import Service, service_of

router = APIRouter(prefix="/v1/registrations", tags=["registrations"])

HEARTBEAT_S = 1.0
LARGEST = 2**53

TheService = Annotated[Service, Depends(service_of)]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Address = Annotated[str, Field(pattern=ADDRESS_PATTERN)]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
Value = (
    bool
    | Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
    | float
    | Annotated[str, Field(max_length=100)]
)


class Order(BaseModel):
    """Two images by address, a model (null: the default for the images) and its options.

    A number without a JSON form is written "Infinity".
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    fixed: Address
    moving: Address
    model: Name | None = None
    options: Annotated[dict[Name, Value], Field(max_length=100)] = {}


@router.post("", status_code=202)
async def order_registration(order: Order, service: TheService) -> Response:
    """Queue a registration; the answer holds its id."""
    fixed = _image(service, order.fixed, "The fixed")
    moving = _image(service, order.moving, "The moving")
    model = await service.model(order.model, fixed)
    # There and back again turns the reserved spelling of infinity into the number.
    job = service.submit(fixed, moving, model, wire.loads(wire.dumps(order.options)))
    headers = {"Location": f"{router.prefix}/{job.id}"}
    return json_response(status_message(job, job.status), 202, headers)


@router.get("/{job_id}")
async def registration_status(job_id: JobId, service: TheService) -> Response:
    """State, stage and fraction done."""
    job = service.jobs.get(job_id)
    return json_response(status_message(job, job.status))


@router.get("/{job_id}/events")
async def registration_events(job_id: JobId, service: TheService) -> Response:
    """Server-sent events with the status, at each change and every second, until it has ended."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = _events(service.jobs.get(job_id))
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


@router.get("/{job_id}/result")
async def registration_result(job_id: JobId, service: TheService) -> Response:
    """The result as JSON, or the error in which the registration ended."""
    return result_response(service.jobs.get(job_id))


@router.get("/{job_id}/transform")
async def registration_transform(
    job_id: JobId,
    service: TheService,
    format: Literal["h5", "tfm"] = "h5",
) -> Response:
    """The transform as an ITK file: 3-D, LPS mm, fixed points to moving points."""
    job = service.jobs.get(job_id)
    result_response(job)
    content = await asyncio.to_thread(_itk_transform, job, format)
    headers = {"Content-Disposition": f'attachment; filename="transform.{format}"'}
    return Response(content, headers=headers, media_type="application/octet-stream")


@router.delete("/{job_id}", status_code=204)
async def cancel_registration(job_id: JobId, service: TheService) -> Response:
    """Cancel a registration, or forget its result when it has ended."""
    service.jobs.cancel(service.jobs.get(job_id))
    return Response(status_code=204)


def status_message(job: Job, status: Status) -> dict[str, Any]:
    """The JSON of a job's status."""
    message: dict[str, Any] = {
        "id": job.id,
        "model": job.model,
        "state": status.state,
        "stage": status.stage,
        "fraction": status.fraction,
    }
    if status.error is not None:
        message["error"] = wire.encode_error(status.error.slug, status.error.message)
    return message


def result_response(job: Job) -> Response:
    """The result of a job. Raises ApiError when there is none (yet)."""
    if not job.status.has_ended:
        raise ApiError(409, "not-finished", "The registration has not ended yet; ask again later.")
    if job.status.error is not None:
        raise job.status.error
    return Response(job.status.result, media_type="application/json")


async def _events(job: Job) -> AsyncIterator[bytes]:
    status = job.status
    while True:
        yield b"data: " + wire.dumps(status_message(job, status)) + b"\n\n"
        if status.has_ended:
            return
        status = await job.next_status(status, HEARTBEAT_S)


def _image(service: Service, address: str, which: str) -> Image:
    image = service.images.get(address)
    if image is None:
        raise unknown_image(which)
    return image


def _itk_transform(job: Job, suffix: str) -> bytes:
    from retreg.files import write_transform

    result = wire.decode_result(wire.loads(job.status.result))
    with TemporaryDirectory() as folder:
        path = FilePath(folder) / f"transform.{suffix}"
        write_transform(path, result.transform, job.fixed_grid)
        return path.read_bytes()
