"""What the routes share: the service, addresses, and answers that hold a result or a file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends
from starlette.responses import Response

from retreg_server.serving.access.caller import audit
from retreg_server.serving.errors import ApiError
from retreg_server.serving.jobs import Job
from retreg_server.serving.service import Service, service_of

VERDICT_HEADER = "RetReg-Verdict"  # a file cannot say whether it is right
BINARY = "application/octet-stream"
ADDRESS_PATTERN = "^[0-9a-f]{64}$"
TheService = Annotated[Service, Depends(service_of)]
TransformFormat = Literal["h5", "tfm", "nii.gz"]
ImageFormat = Literal["nrrd", "nii.gz", "png"]


def content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of an answer that is not JSON."""
    return {200: {"content": {media_type: {}}}}


def result_response(job: Job) -> Response:
    """The result of a job. Raises ApiError when there is none (yet)."""
    if not job.status.has_ended:
        raise ApiError(409, "not-finished", "The registration has not ended yet; ask again later.")
    if job.status.error is not None:
        raise job.status.error
    audit("fetched", job=job.id)
    return Response(job.status.result, media_type="application/json")


def download(content: bytes, name: str) -> Response:
    """A file to keep, under that name."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, headers=headers, media_type=BINARY)
