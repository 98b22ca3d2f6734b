"""Middleware that bounds request bodies, whatever they declare."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retreg_server.serving.errors import ApiError

MAX_MESSAGE_BYTES = 1 << 20
FORM_OVERHEAD_BYTES = 1 << 16


class BodyLimit:
    """Counts the bytes of a body while they stream, and answers 413 when they are too many."""

    def __init__(self, app: ASGIApp, max_image_bytes: int) -> None:
        self._app = app
        self._max_image_bytes = max_image_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        sentence = f"The body of the request is larger than the {limit} bytes that are accepted"
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            error = ApiError(413, "too-large", sentence + "; send a smaller one.")
            await error.response()(scope, receive, send)
            return
        seen = 0

        async def counting_receive() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                # The one exception that FastAPI lets pass while it parses a body.
                raise HTTPException(413, sentence)
            return message

        await self._app(scope, counting_receive, send)

    def _limit(self, path: str) -> int:
        if path.startswith("/v1/images/"):
            return self._max_image_bytes + FORM_OVERHEAD_BYTES
        if path == "/v1/register":
            return 2 * (self._max_image_bytes + FORM_OVERHEAD_BYTES)
        return MAX_MESSAGE_BYTES
