"""Middleware that bounds request bodies: their size and their time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retreg_server.serving.errors import ApiError
from retreg_server.serving.settings import Settings

MAX_MESSAGE_BYTES = 1 << 16
MAX_EDIT_BYTES = 1 << 20  # of keypoints that people have moved
MAX_CONTENT_TYPE_BYTES = 256  # what is longer takes long to parse
FORM_OVERHEAD_BYTES = 1 << 16
LINGER_S = 2.0
BODILESS = ("GET", "HEAD", "DELETE", "OPTIONS")


class BodyLimit:
    """Counts the bytes of bodies while they stream.

    Too many are answered with 413, too slow ones with 408; the sum of all is bounded by the account
    of whoever keeps them. What is still on its way is read and dropped for a moment, so that the
    client can read the answer, and then the connection is closed.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._gate = asyncio.Semaphore(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self._settings, self._limit(scope["path"]), receive)

        async def closing_send(message: Message) -> None:
            if message["type"] == "http.response.start" and body.is_coming:
                headers = [*message["headers"], (b"connection", b"close")]
                message = {**message, "headers": headers}
            is_last = not message.get("more_body", False)
            if message["type"] == "http.response.body" and is_last and body.is_coming:
                await send({**message, "more_body": True})
                await body.drain()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        async def counting_receive() -> Message:
            message = await body.receive()
            if body.is_coming:  # quick requests are answered between the parts of large ones
                async with self._gate:
                    await asyncio.sleep(0)
            return message

        if scope["method"] in BODILESS:
            body.is_coming = False
            await self._app(scope, receive, send)
        elif refusal := body.refusal(dict(scope["headers"])):
            await refusal.response()(scope, receive, closing_send)
        else:
            await self._app(scope, counting_receive, closing_send)

    def _limit(self, path: str) -> int:
        largest = self._settings.image_limit + FORM_OVERHEAD_BYTES
        if path.startswith("/v1/images/"):
            return largest
        if path == "/v1/register" or path.startswith(("/infer/", "/session/")):
            return 2 * largest
        return MAX_EDIT_BYTES if path.endswith("/refit") else MAX_MESSAGE_BYTES


class _Body:
    """The body of one request. is_coming: whether there may be more of it."""

    def __init__(self, settings: Settings, limit: int, receive: Receive) -> None:
        self.limit = limit
        self.counted = 0
        self.is_coming = True
        self.sentence = f"The body of the request is larger than the {limit} bytes accepted"
        self._settings = settings
        self._receive = receive
        self._begun = asyncio.get_running_loop().time()

    def refusal(self, headers: Mapping[bytes, bytes]) -> ApiError | None:
        """What can be said before any of it has come."""
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.limit:
            return ApiError(413, "too-large", self.sentence + "; send a smaller one.")
        if len(headers.get(b"content-type", b"")) > MAX_CONTENT_TYPE_BYTES:
            return ApiError(415, "bad-input", "The content type is longer than any that is in use.")
        return None

    async def receive(self) -> Message:
        """The next part. Raises HTTPException, which FastAPI lets pass while it parses a body."""
        if not self.is_coming:
            return await self._receive()  # waits for the client to go away
        now, settings = asyncio.get_running_loop().time(), self._settings
        too_late = min(now + settings.upload_idle_s, self._begun + settings.upload_total_s)
        try:
            async with asyncio.timeout_at(too_late):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "The body of the request came too slowly") from None
        self.is_coming = message["type"] == "http.request" and message.get("more_body", False)
        self.counted += len(message.get("body", b""))
        if self.counted > self.limit:
            raise HTTPException(413, self.sentence)
        return message

    async def drain(self) -> None:
        """Read and drop what still comes, for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self.is_coming:
                    message = await self._receive()
                    more = message.get("more_body", False)
                    self.is_coming = message["type"] == "http.request" and more
