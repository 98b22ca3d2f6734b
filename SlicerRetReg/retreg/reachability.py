"""The way to a server, one step at a time, so that the one that fails can be named."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from retreg.addresses import is_loopback
from retreg.client import Client
from retreg.errors import InputError, RetRegError
from retreg.exchange import trusting

TIMEOUT_S = 10.0
ADVICE = {
    "resolve": "no machine has this name; check its spelling and the network",
    "connect": "nothing answers there; check that the server runs, its port and the firewall",
    "TLS": "check the name in the certificate, and give that of its authority with --ca-file",
}


@dataclass(frozen=True)
class Step:
    """One step on the way. sentence: what was found, or what is wrong and what to do."""

    name: str
    ok: bool
    sentence: str


def steps(
    url: str, token: str | None = None, ca_file: str | Path | None = None
) -> Iterator[Step]:
    """The steps to a server, up to and including the first that fails.

    Their names are address, resolve, connect, TLS (for https), health, token and models. Behind a
    proxy of the environment the first steps lead to the proxy. ca_file: as of retreg.Client.
    """
    for name, check in _checks(url, token, ca_file):
        step = _step(name, check)
        yield step
        if not step.ok:
            return


def _checks(
    url: str, token: str | None, ca_file: str | Path | None
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name and check of each step; a check returns what it found or raises."""
    yield "address", lambda: _address(url)
    parts = urlsplit(url)
    proxy = _proxy(parts)
    first = proxy or parts
    via = " of the proxy" if proxy else ""
    yield "resolve", lambda: f"the address{via} is {_resolve(first)}"
    yield "connect", lambda: _connect(first)
    if parts.scheme == "https" and proxy is None:
        yield "TLS", lambda: _handshake(parts, ca_file)
    with Client(
        url, token, ca_file=ca_file, connect_timeout_s=TIMEOUT_S, read_timeout_s=TIMEOUT_S
    ) as client:
        yield "health", lambda: f"{url} answers {client.health().get('status')}"
        yield "token", lambda: f"accepted; version {client.info().get('version')}"
        yield "models", lambda: ", ".join(model.name for model in client.models())


def _step(name: str, check: Callable[[], str]) -> Step:
    """What a check finds; its exception becomes a failure in words."""
    try:
        return Step(name, True, check())
    except RetRegError as error:
        return Step(name, False, str(error))
    except (OSError, ValueError) as error:
        advice = ADVICE.get(name, "check the address")
        return Step(name, False, f"{error or type(error).__name__}: {advice}.")


def _address(url: str) -> str:
    Client(url).close()  # which is what judges it
    parts = urlsplit(url)
    return f"host {parts.hostname}, port {_port(parts)}"


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise InputError("The port in the address is not a number up to 65535.") from None


def _proxy(parts: SplitResult) -> SplitResult | None:
    """The proxy that the client will use, as requests finds it."""
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    address = proxies.get(parts.scheme) or proxies.get("all")
    if not address:
        return None
    return urlsplit(address if "://" in address else f"http://{address}")


def _resolve(parts: SplitResult) -> str:
    found = socket.getaddrinfo(parts.hostname, _port(parts), type=socket.SOCK_STREAM)
    return ", ".join(sorted({str(entry[4][0]) for entry in found}))


def _connect(parts: SplitResult) -> str:
    with socket.create_connection((parts.hostname or "", _port(parts)), TIMEOUT_S):
        return "a connection was accepted"


def _handshake(parts: SplitResult, ca_file: str | Path | None) -> str:
    context = trusting(ca_file)
    context.load_verify_locations(**_more_authorities(parts.hostname or ""))
    with (
        socket.create_connection((parts.hostname or "", _port(parts)), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
    ):
        return f"{secure.version()}, the certificate is valid"


def _more_authorities(host: str) -> dict[str, str]:
    """Those that requests trusts beside the system's, so that this step judges as the next does."""
    import certifi

    place = certifi.where()
    if not is_loopback(host):  # there the client does not look at the environment
        variables = "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"
        place = next(filter(None, map(os.environ.get, variables)), place)
    return {"capath" if Path(place).is_dir() else "cafile": place}
