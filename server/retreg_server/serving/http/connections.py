"""Connections with bounds: of the bytes of a head, and of the clients and seconds waited for.

What a client sends before its request is known is bounded by bytes, by time and by number; what it
does not read is bounded by time and number. Whoever passes a bound is told in one sentence where
HTTP still allows it, and the connection is closed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from retreg import wire

MAX_HEAD_BYTES = 1 << 16
MAX_URL_BYTES = 1 << 13
MAX_HEADER_LINES = 128
MAX_PIPELINED = 8
MAX_BODY_PIECES = 4096  # of one read: chunks of less than 64 bytes cost more than they bring
PIECE_BYTES = 1 << 14  # parsed at a time, so that a bound is noticed before much is done
MALFORMED = "The request is not valid HTTP/1.1; check the address and the client."


@dataclass(eq=False)
class WaitingRoom:
    """Connections that wait for their client: at most limit of them, each for at most seconds.

    The one that has waited longest leaves when another one comes to a full room.
    """

    limit: int
    seconds: float
    _timers: dict[GuardedProtocol, asyncio.TimerHandle] = field(default_factory=dict)

    def enter(self, connection: GuardedProtocol) -> None:
        """Begin to wait; who waits already goes on with the time that is left."""
        if connection in self._timers:
            return
        if len(self._timers) >= self.limit:
            self._expel(next(iter(self._timers)))
        loop = asyncio.get_running_loop()
        self._timers[connection] = loop.call_later(self.seconds, self._expel, connection)

    def leave(self, connection: GuardedProtocol) -> None:
        """The client has done what was waited for, or has gone."""
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _expel(self, connection: GuardedProtocol) -> None:
        self.leave(connection)
        connection.transport.abort()


@dataclass(frozen=True, eq=False)
class Patience:
    """heads: connections whose request has not come yet. readers: those that do not read."""

    heads: WaitingRoom
    readers: WaitingRoom


class Refused(Exception):
    """A bound was passed while a request was parsed."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection; belongs to the event loop."""

    def __init__(self, patience: Patience, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._patience = patience
        self._silent_bytes = 0  # parsed since anything was known: in heads, trailers, extensions
        self._pieces = 0
        self._lines = 0
        self._refusal = (400, "bad-input", MALFORMED)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; its head is waited for."""
        super().connection_made(transport)
        self._patience.heads.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._patience.heads.leave(self)
        self._patience.readers.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, piece by piece."""
        self._pieces = 0
        view = memoryview(data)
        for begun in range(0, len(view), PIECE_BYTES):
            if self.transport.is_closing():
                return
            piece = view[begun : begun + PIECE_BYTES]
            self._silent_bytes += len(piece)
            super().data_received(piece)  # type: ignore[arg-type]
            if self._silent_bytes > MAX_HEAD_BYTES:
                self._refuse(431, f"The head of the request exceeds {MAX_HEAD_BYTES} bytes")
            if len(self.pipeline) > MAX_PIPELINED:
                self._refuse(400, f"More than {MAX_PIPELINED} requests came before an answer")
        if self.cycle is None or self.cycle.response_complete:
            self._patience.heads.enter(self)

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            raise self._refused(414, f"The address exceeds {MAX_URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head, or of the trailer."""
        self._lines += 1
        if self._lines > MAX_HEADER_LINES:
            raise self._refused(431, f"The request has more than {MAX_HEADER_LINES} header lines")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request is known."""
        self._silent_bytes = 0
        self._patience.heads.leave(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._silent_bytes = 0
        self._pieces += 1
        if self._pieces > MAX_BODY_PIECES:
            raise self._refused(400, "The body comes in far too many small chunks")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request has come."""
        self._silent_bytes = self._lines = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client does not read what it asked for."""
        self._patience.readers.enter(self)
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has read."""
        self._patience.readers.leave(self)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what cannot be parsed, and close; uvicorn calls this for every failure."""
        status, slug, sentence = self._refusal
        if self.cycle is None or self.cycle.response_complete:
            body = wire.dumps(wire.encode_error(slug, sentence))
            head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            head += "connection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head.encode("ascii") + body)
        self.transport.close()

    def _refused(self, status: int, sentence: str) -> Refused:
        """What a callback of the parser raises; the parser's failure then brings the answer."""
        self._refusal = (status, "too-large", f"{sentence}; send a shorter one.")
        return Refused()

    def _refuse(self, status: int, sentence: str) -> None:
        self._refused(status, sentence)
        if not self.transport.is_closing():
            self.send_400_response("")
