"""Who asks: what lines, shares and logs call a client."""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

CLIENT = "retreg.client"
"""The entry of a scope with the name of the client, where its token has one."""
HOST_BITS_OF_SITE = 64  # an IPv6 host has that many addresses of its own
_current: ContextVar[str] = ContextVar("client", default="")


def client_name() -> str:
    """The client whose request is being answered: the name of its token, or its address."""
    return _current.get()


class Clients:
    """Middleware: tells everything behind it whose request it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        mark = _current.set(scope.get(CLIENT) or site((scope.get("client") or ("",))[0]))
        try:
            await self._app(scope, receive, send)
        finally:
            _current.reset(mark)


def site(host: str) -> str:
    """An address, without the part that an IPv6 host may choose."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((int(address), 128 - HOST_BITS_OF_SITE), strict=False))
