"""JSON bodies that are counted before anything is made of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

MAX_DEPTH = 4  # an order holds options, and these hold values
MAX_VALUES = 300


class BoundedRoute(APIRoute):
    """A route whose JSON body holds at most MAX_VALUES values in MAX_DEPTH levels.

    To describe what is wrong with each of ten thousand options takes longer than anybody else
    should have to wait; so they are counted first.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """As FastAPI's, for a request that reads its body with bounds."""
        handle = super().get_route_handler()

        async def bounded_handle(request: Request) -> Response:
            return await handle(_BoundedRequest(request.scope, request.receive))

        return bounded_handle


class _BoundedRequest(Request):
    async def json(self) -> Any:
        """The message. Raises HTTPException, which FastAPI lets pass while it parses a body."""
        return bounded_message(await self.body())


def bounded_message(body: bytes) -> Any:
    """The message in a JSON text. Raises HTTPException 422 for none, or one too deep or long."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(422, "The body is not valid JSON; send strict JSON in UTF-8") from None
    left, count = [(message, 1)], 0
    while left:
        value, depth = left.pop()
        count += 1
        if isinstance(value, (dict, list)):
            inner = value.values() if isinstance(value, dict) else value
            if count + len(left) + len(value) > MAX_VALUES or depth > MAX_DEPTH:
                raise HTTPException(
                    422,
                    f"The body holds more than {MAX_VALUES} values or {MAX_DEPTH} levels; send "
                    "only what is asked for",
                )
            left.extend((each, depth + 1) for each in inner)
    return message
