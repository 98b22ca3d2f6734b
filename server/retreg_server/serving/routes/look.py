"""What the page that shows a result is told, and what people edited on it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, FailFast, Field
from starlette.responses import Response

from retreg import wire
from retreg_server.serving.access.caller import caller
from retreg_server.serving.errors import json_response
from retreg_server.serving.http.bounded_json import MAX_VALUES, BoundedRoute
from retreg_server.serving.routes.answers import Page, Refitted
from retreg_server.serving.routes.registrations import JobId
from retreg_server.serving.routes.responses import (
    BINARY,
    LargeResponse,
    TheService,
    content,
    result_response,
)
from retreg_server.serving.workers.messages import SharedBuffer

MOST_PAIRS = 5_000


class EditRoute(BoundedRoute):
    """Of keypoints: both points of a pair with three numbers each, and whether it is used."""

    most_values = 9 * MOST_PAIRS + MAX_VALUES


router = APIRouter(route_class=EditRoute, prefix="/v1/registrations", tags=["look"])

Role = Literal["fixed", "moving"]
Number = Annotated[float, Field(allow_inf_nan=False)]
Place = Annotated[list[Number], FailFast(), Field(min_length=3, max_length=3)]
Places = Annotated[list[Place], FailFast(), Field(max_length=MOST_PAIRS)]


class EditedKeypoints(BaseModel):
    """Both points (LPS mm) of each pair as people left them; the first ones are those of the
    result, in its order, and more may follow. used: whether each pair counts. transform: the
    correction of the result by what was changed, or a family to fit to all pairs. smoothing: of
    tps; infinity is written "Infinity". reach_mm: of the correction.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    fixed: Places
    moving: Places
    used: Annotated[list[bool], FailFast(), Field(max_length=MOST_PAIRS)]
    transform: Literal["correction", "rigid", "similarity", "affine", "tps"]
    smoothing: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["Infinity"] = 0.0
    reach_mm: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    def text(self) -> bytes:
        """As JSON, which wire.loads makes into what reporting.look.edit_of reads."""
        return self.model_dump_json().encode()


@router.get("/{job_id}/look", response_model=Page)
async def registration_for_page(job_id: JobId, service: TheService) -> Response:
    """Keypoints, quality, and the transform as a field on a lattice over the fixed image."""
    job = await service.jobs.get(job_id)
    result_response(job)
    head = {"task": "page", "grid": wire.loads(job.record.grid)}
    answer = await service.look_task(head, SharedBuffer.of(job.status.result))
    return LargeResponse(answer.buffers, "application/json")


@router.get("/{job_id}/look/{role}", responses=content(BINARY), response_class=Response)
async def registration_image_for_page(
    job_id: JobId, role: Role, service: TheService
) -> Response:
    """An image in 8 bits, at most 2048 pixels or 256 voxels along an axis; header: as sent."""
    job = await service.jobs.get(job_id)
    fixed = service.fixed_addresses.get(job.id) or ""
    image = service.image(job.record.moving if role == "moving" else fixed, f"The {role}")
    answer = await service.look_task({"task": "shown", "header": image.header}, image.voxels)
    headers = {wire.IMAGE_HEADER: answer.head["header"], "Cache-Control": "no-store"}
    return LargeResponse(answer.buffers, BINARY, headers)


@router.post("/{job_id}/refit", status_code=201, response_model=Refitted)
async def refit_registration(
    job_id: JobId, edited: EditedKeypoints, service: TheService
) -> Response:
    """Make a new result of edited keypoints, judged without the images; the answer has its id."""
    caller().require("register")
    job = await service.jobs.get(job_id)
    result_response(job)
    moving = service.known(job.record.moving)
    grid = None if moving is None else wire.encode_grid(moving.image.grid)
    head = {"task": "refitted", "grid": wire.loads(job.record.grid), "moving_grid": grid}
    head["origin"] = f"registration {job.id}"
    enclosed = (SharedBuffer.of(job.status.result), SharedBuffer.of(edited.text()))
    answer = await service.look_task(head, *enclosed)
    kept = await service.jobs.keep_edited(job, bytes(answer.buffers[0].view))
    fixed = service.fixed_addresses.get(job.id)
    if fixed is not None:
        service.fixed_addresses.put(kept.id, fixed, 1)
    verdict = {name: answer.head[name] for name in ("verdict", "reason")}
    headers = {"Location": f"{router.prefix}/{kept.id}"}
    return json_response({"id": kept.id, **verdict}, 201, headers)
