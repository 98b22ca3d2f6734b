"""Middleware that lets only those in who may: bearer token, or programs of this machine."""

from __future__ import annotations

from dataclasses import replace

from starlette.types import ASGIApp, Receive, Scope, Send

from retreg.addresses import is_loopback
from retreg_server.serving.access.addresses import client_address, networks
from retreg_server.serving.access.caller import Caller, answer_to
from retreg_server.serving.access.failures import Failures
from retreg_server.serving.access.tokens import Tokens
from retreg_server.serving.errors import ApiError
from retreg_server.serving.settings import Settings

# MONAI Label's clients ask the last two before they have a token; neither tells anything.
OPEN = {("GET", "/healthz"), ("HEAD", "/healthz"), ("GET", "/auth/"), ("POST", "/auth/token")}


class AccessControl:
    """With tokens, every path but /healthz needs one. Without, browsers are kept out.

    A page of an origin that the settings do not list must not reach a server on the user's own
    machine, neither directly (it sends Origin) nor through a name that its owner points at
    127.0.0.1 (it sends that Host).
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, tokens: Tokens, failures: Failures
    ) -> None:
        self._app = app
        self._origins = settings.cors_origins
        self._proxies = networks(settings.trusted_proxies)
        self._tokens = tokens
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                client = self._client(scope)
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = client  # for the log, which is outside
            answer_to(client)
        await self._app(scope, receive, send)

    def _client(self, scope: Scope) -> Caller:
        """Who asks. Raises ApiError."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        is_open = (scope["method"], scope["path"]) in OPEN or _is_page(scope)
        forwarded = [line for name, line in scope["headers"] if name == b"x-forwarded-for"]
        address = client_address((scope.get("client") or ("",))[0], forwarded, self._proxies)
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host and origin not in self._origins:
            raise ApiError(403, "forbidden", "Pages of other origins may not use this server.")
        if not self._tokens.are_needed:
            if not is_open and not is_loopback(_without_port(host)):
                raise ApiError(
                    403, "forbidden", "Without a token this server answers to 127.0.0.1 only."
                )
            return Caller(address=address)
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        known = self._tokens.owner_of(given.strip()) if scheme.lower() == b"bearer" else None
        if known is None:
            if not is_open:
                raise refusal(self._failures, address) if given else unauthorised()
            known = Caller(rights=frozenset())
        return replace(known, address=address)


def refusal(failures: Failures, address: str) -> ApiError:
    """The answer to a wrong token, which is counted."""
    wait_s = failures.retry_after_s(address)
    if not wait_s:
        return unauthorised()
    return ApiError(
        429,
        "too-many-failures",
        "This address has sent too many wrong tokens; try again later, with the right one.",
        {"Retry-After": str(wait_s)},
    )


def _is_page(scope: Scope) -> bool:
    """Whether files for browsers are asked for: the same for everybody, and without results."""
    path = scope["path"]
    is_one = path == "/look" or path.startswith(("/look/", "/viewers/"))
    return scope["method"] == "GET" and is_one


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
