"""A number for each request, in the answer and in the log, and logs that machines can read."""

from __future__ import annotations

import json
import logging
import secrets
import time
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retreg_server.serving.metrics import Metrics

logger = logging.getLogger(__name__)

HEADER = "X-Request-ID"
FACTS = ("request", "job", "state", "method", "route", "status", "ms", "client", "address",
         "act", "image", "fixed", "moving")  # fmt: skip
QUIET = ("/healthz", "/readyz", "/metrics")
_current: ContextVar[str] = ContextVar("request", default="")


def request_id() -> str:
    """The number of the request that is being answered, or nothing outside of one."""
    return _current.get()


class Tracing:
    """Middleware: numbers each request, counts it, and logs its route, never its parameters."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = secrets.token_hex(8)
        mark = _current.set(number)
        begun = time.perf_counter()
        status = 0

        async def marking_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = (HEADER.lower().encode(), number.encode())
                message = {**message, "headers": [*message["headers"], own]}
            await send(message)

        try:
            await self._app(scope, receive, marking_send)
        finally:
            _current.reset(mark)
            self._tell(scope, number, status, time.perf_counter() - begun)

    def _tell(self, scope: Scope, number: str, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "unknown")
        self._metrics.answered(scope["method"], path, status, seconds)
        level = logging.DEBUG if path in QUIET else logging.INFO
        facts = {
            "request": number,
            "method": scope["method"],
            "route": path,
            "status": status,
            "ms": round(seconds * 1000, 1),
        }
        client = scope.get("state", {}).get("caller")
        if client is not None:
            facts |= {"client": client.name, "address": client.address}
        job = scope.get("path_params", {}).get("job_id")
        if job is not None and status != 422:  # only then it is known to be one of ours
            facts["job"] = job
        logger.log(level, "%(method)s %(route)s %(status)s", facts, extra=facts)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        facts = {name: getattr(record, name) for name in FACTS if hasattr(record, name)}
        return json.dumps(line | facts)


class TextFormatter(logging.Formatter):
    """For people: time, level, message, and the number of the request."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        number = getattr(record, "request", "")
        return super().format(record) + (f" [{number}]" if number else "")
