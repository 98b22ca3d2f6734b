"""Maps of a registration: where it is sure, where it stretches, how far it moves."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from retreg_server.serving.registrations import (
    BINARY,
    JobId,
    TheService,
    content,
    download,
    result_response,
)

router = APIRouter(prefix="/v1/registrations", tags=["registrations"])


@router.get("/{job_id}/maps/{name}", responses=content(BINARY))
async def registration_map(
    job_id: JobId,
    name: Literal["error", "displacement", "jacobian", "beltrami"],
    service: TheService,
    format: Literal["nrrd", "nii.gz", "png"] = "nrrd",
) -> Response:
    """A map on the grid of the fixed image; png has a colour bar. beltrami is for pictures only."""
    job = await service.jobs.get(job_id)
    result_response(job)
    return download(await service.map_file(job, name, format), f"map_{name}.{format}")
