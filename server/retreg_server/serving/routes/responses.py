"""What the routes share: the service, addresses, and answers that hold a result or a file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from retreg_server.serving.access.caller import audit
from retreg_server.serving.errors import ApiError
from retreg_server.serving.jobs import Job
from retreg_server.serving.service import Service, service_of
from retreg_server.serving.workers.messages import SharedBuffer

PIECE_BYTES = 1 << 16
VERDICT_HEADER = "RetReg-Verdict"  # a file cannot say whether it is right
BINARY = "application/octet-stream"
ADDRESS_PATTERN = "^[0-9a-f]{64}$"
TheService = Annotated[Service, Depends(service_of)]
TransformFormat = Literal["h5", "tfm", "nii.gz"]
ImageFormat = Literal["nrrd", "nii.gz", "png"]


def content(media_type: str) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of an answer that is not JSON."""
    return {200: {"content": {media_type: {}}}}


def result_response(job: Job) -> LargeResponse:
    """The result of a job. Raises ApiError when there is none (yet)."""
    if not job.status.has_ended:
        raise ApiError(409, "not-finished", "The registration has not ended yet; ask again later.")
    if job.status.error is not None:
        raise job.status.error
    audit("fetched", job=job.id)
    result = SharedBuffer.around(memoryview(job.status.result))
    return LargeResponse([result], "application/json")


def download(content: SharedBuffer, name: str) -> LargeResponse:
    """A file to keep, under that name."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return LargeResponse([content], BINARY, headers)


class LargeResponse(Response):
    """An answer of any size: what the client has not yet taken stays where it is, uncopied."""

    def __init__(
        self,
        parts: Sequence[SharedBuffer],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        length = {"Content-Length": str(sum(map(len, parts)))}
        super().__init__(None, headers={**(headers or {}), **length}, media_type=media_type)
        self.parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send piece by piece, each when the client has taken those before it."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        for part in self.parts:
            for begun in range(0, len(part), PIECE_BYTES):
                piece = bytes(part.view[begun : begun + PIECE_BYTES])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)  # others come in between, however fast this client reads
        await send({"type": "http.response.body", "body": b""})
