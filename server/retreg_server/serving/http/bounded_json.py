"""JSON bodies that are counted before anything is made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

MAX_DEPTH = 4  # an order holds options, and these hold values
MAX_VALUES = 300
SMALL_BYTES = 1 << 16  # soon parsed, whatever it holds


class BoundedRoute(APIRoute):
    """A route whose JSON body holds at most most_values values in MAX_DEPTH levels.

    An object holds no more than MAX_VALUES of them, whatever the route. To describe what is wrong
    with each of ten thousand options takes longer than anybody else should have to wait; so they
    are counted first.
    """

    most_values = MAX_VALUES

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """As FastAPI's, for a request that reads its body with bounds."""
        handle = super().get_route_handler()

        async def bounded_handle(request: Request) -> Response:
            bounded = _BoundedRequest(request.scope, request.receive)
            bounded.most_values = self.most_values
            return await handle(bounded)

        return bounded_handle


class _BoundedRequest(Request):
    most_values = MAX_VALUES

    async def json(self) -> Any:
        """The message. Raises HTTPException, which FastAPI lets pass while it parses a body."""
        body = await self.body()
        await asyncio.sleep(0)  # others come in between
        message = bounded_message(body, self.most_values)
        await asyncio.sleep(0)
        return message


def bounded_message(body: bytes, most_values: int = MAX_VALUES) -> Any:
    """The message in a JSON text. Raises HTTPException 422 for none, or one too deep or long."""
    if len(body) > SMALL_BYTES and sum(map(body.count, (b",", b"[", b"{"))) > most_values:
        raise _too_much(most_values)
    try:
        message = from_json(body)
    except ValueError:
        raise HTTPException(422, "The body is not valid JSON; send strict JSON in UTF-8") from None
    level, count = [message], 1
    for _ in range(MAX_DEPTH):
        level = [each for each in level if isinstance(each, (dict, list))]
        count += sum(map(len, level))
        if count > most_values or any(len(e) > MAX_VALUES for e in level if isinstance(e, dict)):
            break
        level = [
            inner for e in level for inner in (e.values() if isinstance(e, dict) else e)
        ]
    else:
        if not any(isinstance(each, (dict, list)) for each in level):
            return message
    raise _too_much(most_values)


def _too_much(most_values: int) -> HTTPException:
    return HTTPException(
        422,
        f"The body holds more than {most_values} values or {MAX_DEPTH} levels; send only what is "
        "asked for",
    )
