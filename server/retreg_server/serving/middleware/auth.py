"""Middleware that lets only those in who may: bearer token, or programs of this machine."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from retreg.addresses import is_loopback
from retreg_server.serving.errors import ApiError
from retreg_server.serving.settings import Settings

# MONAI Label's clients ask the last two before they have a token; neither tells anything.
OPEN = {("GET", "/healthz"), ("HEAD", "/healthz"), ("GET", "/auth/"), ("POST", "/auth/token")}


class AccessControl:
    """With a token, every path but /healthz needs it. Without one, browsers are kept out.

    A page of an origin that the settings do not list must not reach a server on the user's own
    machine, neither directly (it sends Origin) nor through a name that its owner points at
    127.0.0.1 (it sends that Host).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._origins = settings.cors_origins
        self._token = settings.token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            is_open = (scope["method"], scope["path"]) in OPEN or _is_page(scope)
            refusal = self._refusal(dict(scope["headers"]), is_open)
            if refusal is not None:
                await refusal.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: dict[bytes, bytes], is_open: bool) -> ApiError | None:
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host and origin not in self._origins:
            return ApiError(403, "forbidden", "Pages of other origins may not use this server.")
        if self._token is None:
            if not is_open and not is_loopback(_without_port(host)):
                return ApiError(
                    403, "forbidden", "Without a token this server answers to 127.0.0.1 only."
                )
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if is_open or (scheme.lower() == b"bearer" and is_token(given.strip(), self._token)):
            return None
        return unauthorised()


def _is_page(scope: Scope) -> bool:
    """Whether files of the page are asked for: the same for everybody, and without results."""
    return scope["method"] == "GET" and scope["path"].startswith("/look/")


def is_token(given: bytes, token: str) -> bool:
    """Whether that is the token; takes the same time whatever is given."""
    return hmac.compare_digest(given, token.encode("ascii"))


def unauthorised() -> ApiError:
    """The answer to a missing or wrong token."""
    return ApiError(
        401,
        "unauthorised",
        "The token is missing or wrong; send the one that the server was started with.",
        {"WWW-Authenticate": "Bearer"},
    )


def _without_port(host: str) -> str:
    """127.0.0.1 of 127.0.0.1:8600, and ::1 of [::1]:8600."""
    if host.startswith("["):
        name, bracket, _ = host[1:].partition("]")
        return name if bracket else ""
    return host.partition(":")[0]
