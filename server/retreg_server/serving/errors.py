"""Every failure leaves the server as {"error": slug, "message": sentence} with a true status."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retreg import wire
from retreg.errors import Cancelled, InputError, RegistrationError, RetRegError

logger = logging.getLogger(__name__)

STOPPED = "The server was stopped before it had answered; order it again."
INTERNAL = (
    "The server failed unexpectedly; try again, and tell its administrator the time if it "
    "happens again."
)
SLUGS = {401: "unauthorised", 403: "forbidden", 404: "not-found", 405: "method-not-allowed",
         408: "too-slow", 503: "busy",
         413: "too-large", 415: "bad-file"}  # fmt: skip
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "error": {"type": "string", "pattern": "^[a-z-]+$", "maxLength": 64},
        "message": {"type": "string", "description": "a sentence for the user"},
    },
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": {"application/json": {"schema": ERROR_SCHEMA}}}
    for status, meaning in {
        400: "not a valid request", 401: "no token", 403: "not from here", 404: "not there",
        408: "too slow", 409: "not now", 413: "too large", 415: "not this kind of file",
        422: "cannot be used", 429: "queue full", 500: "failed", 503: "not ready", 504: "too long",
    }.items()
}  # fmt: skip


class ApiError(Exception):
    """An answer with a status, a slug and a sentence."""

    def __init__(
        self, status: int, slug: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.slug = slug
        self.message = message
        self.headers = headers

    def response(self) -> Response:
        """The HTTP answer."""
        return json_response(
            wire.encode_error(self.slug, self.message), self.status, self.headers
        )


def json_response(
    message: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in the strict JSON of retreg.wire."""
    return Response(wire.dumps(message), status, headers, "application/json")


def api_error(error: RetRegError) -> ApiError:
    """The answer for one of the project's own exceptions."""
    status = 500
    if isinstance(error, (InputError, RegistrationError)):
        status = 422
    elif isinstance(error, Cancelled):
        status = 409
    return ApiError(status, wire.error_slug(error), str(error))


def describe(error: BaseException) -> str:
    """The class and the place of an exception; its text may hold a file name or worse."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].name}:{frames[-1].lineno}" if frames else "an unknown place"
    return f"{type(error).__name__} in {place}"


def add_error_handlers(app: FastAPI) -> None:
    """Answer every known exception with its own status and sentence."""

    async def answer(_: Request, error: Exception) -> Response:
        return _as_api_error(error).response()

    for kind in (ApiError, RetRegError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RetRegError):
        return api_error(error)
    if isinstance(error, HTTPException):
        slug = SLUGS.get(error.status_code, "bad-input")
        sentence = f"The request could not be answered: {str(error.detail).rstrip('.')}."
        return ApiError(error.status_code, slug, sentence, error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = " / ".join(str(part) for part in first.get("loc", ()))
        return ApiError(422, "bad-input", f"The request is not valid at {place}: {first['msg']}.")
    return ApiError(500, "internal", INTERNAL)


class LastResort:
    """Middleware: an unforeseen exception is logged without its text and becomes a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except ClientDisconnect:
            return  # nobody is left who could be answered
        except asyncio.CancelledError:  # the server stops, and this took longer than its grace
            if scope["type"] != "http":
                raise
            if not started:
                error = ApiError(503, "interrupted", STOPPED, {"Retry-After": "2"})
                await error.response()(scope, receive, send)
        except Exception as failure:
            if scope["type"] != "http":
                raise
            logger.error("A request failed with %s.", describe(failure))
            if not started:
                await _as_api_error(failure).response()(scope, receive, send)
