"""Registrations as jobs: order, watch, fetch, cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from retreg import wire
from retreg.transforms import Affine
from retreg_server.serving.access.caller import caller
from retreg_server.serving.errors import json_response
from retreg_server.serving.http.bounded_json import BoundedRoute
from retreg_server.serving.jobs import Job, Jobs, Status
from retreg_server.serving.routes.answers import RegistrationStatus, Result
from retreg_server.serving.routes.responses import (
    ADDRESS_PATTERN,
    BINARY,
    ImageFormat,
    TheService,
    TransformFormat,
    content,
    download,
    result_response,
)

router = APIRouter(route_class=BoundedRoute, prefix="/v1/registrations", tags=["registrations"])

HEARTBEAT_S = 1.0
LARGEST = 2**53

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Address = Annotated[str, Field(pattern=ADDRESS_PATTERN)]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,63}$")]
Value = (
    bool
    | Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
    | float
    | Annotated[str, Field(max_length=100)]
)


Row = Annotated[list[float | int], Field(min_length=4, max_length=4)]
Matrix = Annotated[list[Row], Field(min_length=4, max_length=4)]


class RegistrationOrder(BaseModel):
    """Two images by address, a model (null: the default for the images) and its options.

    fixed_mask, moving_mask: addresses of images; where they are 0, theirs does not count. initial:
    the affine matrix (4 x 4) from fixed to moving points, LPS mm, near which alone is searched.

    A number without a JSON form is written "Infinity".
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    fixed: Address
    moving: Address
    model: Name | None = None
    options: Annotated[dict[Name, Value], Field(max_length=100)] = {}
    fixed_mask: Address | None = None
    moving_mask: Address | None = None
    initial: Matrix | None = None


@router.post("", status_code=202, response_model=RegistrationStatus)
async def order_registration(order: RegistrationOrder, service: TheService) -> Response:
    """Queue a registration; the answer holds its id."""
    fixed = service.image(order.fixed, "The fixed")
    moving = service.image(order.moving, "The moving")
    if order.fixed_mask:
        mask = service.image(order.fixed_mask, "The mask of the fixed")
        fixed = service.keep(await service.masked(fixed, mask, "fixed"))
    if order.moving_mask:
        mask = service.image(order.moving_mask, "The mask of the moving")
        moving = service.keep(await service.masked(moving, mask, "moving"))
    model = await service.model(order.model, fixed, moving)
    # There and back again turns the reserved spelling of infinity into the number.
    options = wire.loads(wire.dumps(order.options))
    initial = None if order.initial is None else affine(order.initial)
    job = await service.submit(fixed, moving, model, options, initial)
    headers = {"Location": f"{router.prefix}/{job.id}"}
    return json_response(status_message(job, job.status), 202, headers)


@router.get("/{job_id}", response_model=RegistrationStatus)
async def registration_status(job_id: JobId, service: TheService) -> Response:
    """State, stage and fraction done."""
    job = await service.jobs.get(job_id)
    return json_response(status_message(job, job.status))


@router.get(
    "/{job_id}/events", responses=content("text/event-stream"), response_class=StreamingResponse
)
async def registration_events(job_id: JobId, service: TheService) -> Response:
    """Server-sent events with the status, at each change and every second, until it has ended.

    A registration whose watchers have all gone is cancelled after a while.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = _events(service.jobs, await service.jobs.get(job_id))
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


@router.get("/{job_id}/result", response_model=Result)
async def registration_result(job_id: JobId, service: TheService) -> Response:
    """The result as JSON, or the error in which the registration ended."""
    return result_response(await service.jobs.get(job_id))


@router.get("/{job_id}/transform", responses=content(BINARY), response_class=Response)
async def registration_transform(
    job_id: JobId, service: TheService, format: TransformFormat = "h5"
) -> Response:
    """The transform as an ITK file: 3-D, LPS mm, fixed points to moving points.

    h5 holds every kind of transform, tfm an affine one, nii.gz a field of displacements.
    """
    job = await service.jobs.get(job_id)
    result_response(job)
    return download(await service.transform_file(job, format), job.file_name("transform", format))


@router.get("/{job_id}/warped", responses=content(BINARY), response_class=Response)
async def registration_warped(
    job_id: JobId, service: TheService, format: ImageFormat = "nrrd"
) -> Response:
    """The moving image on the grid of the fixed one; the server must still have the image."""
    job = await service.jobs.get(job_id)
    result_response(job)
    return download(await service.warped_file(job, format), job.file_name("warped", format))


@router.get(
    "/{job_id}/maps/{name}", responses=content(BINARY), response_class=Response
)
async def registration_map(
    job_id: JobId,
    name: Literal["error", "displacement", "jacobian", "beltrami"],
    service: TheService,
    format: ImageFormat = "nrrd",
) -> Response:
    """A map on the grid of the fixed image; png has a colour bar. beltrami is for pictures only."""
    job = await service.jobs.get(job_id)
    result_response(job)
    file = await service.map_file(job, name, format)
    return download(file, job.file_name(f"map_{name}", format))


@router.delete("/{job_id}", status_code=204)
async def cancel_registration(job_id: JobId, service: TheService) -> Response:
    """Cancel a registration, or forget its result when it has ended."""
    caller().require("register")
    await service.jobs.cancel(await service.jobs.get(job_id))
    return Response(status_code=204)


def affine(matrix: Sequence[Sequence[float]]) -> Affine:
    """The affine of a matrix (4, 4). Raises InputError for one that is no affine."""
    return Affine(np.array(matrix, dtype=np.float64))


def status_message(job: Job, status: Status) -> dict[str, Any]:
    """The JSON of a job's status."""
    message: dict[str, Any] = {
        "id": job.id,
        "model": job.record.model,
        "state": status.state,
        "stage": status.stage,
        "fraction": status.fraction,
    }
    if status.error is not None:
        message["error"] = wire.encode_error(status.error.slug, status.error.message)
    return message


async def _events(jobs: Jobs, job: Job) -> AsyncIterator[bytes]:
    async with aclosing(jobs.watch(job, HEARTBEAT_S)) as statuses:
        async for status in statuses:
            yield b"data: " + wire.dumps(status_message(job, status)) + b"\n\n"
