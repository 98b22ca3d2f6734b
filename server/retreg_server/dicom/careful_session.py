"""HTTP to an archive that is not trusted: one host, no redirects, bounded size and time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from retreg.errors import ServerError
from retreg_server.dicom.archives import Archive


@dataclass(frozen=True)
class Bounds:
    """What one conversation with an archive may take. idle_s: without a byte."""

    received_bytes: int
    idle_s: float
    total_s: float


def careful_session(archive: Archive, bounds: Bounds) -> requests.Session:
    """A session that reaches this archive only; its requests raise ServerError beyond bounds."""
    session = requests.Session()
    session.trust_env = False  # no proxy and no password file of whoever runs this
    session.max_redirects = 0
    adapter = _CarefulAdapter(archive, bounds)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    if archive.token:
        session.headers["Authorization"] = f"Bearer {archive.token}"
    elif archive.user:
        session.auth = (archive.user, archive.password)
    return session


class _CarefulAdapter(HTTPAdapter):
    def __init__(self, archive: Archive, bounds: Bounds) -> None:
        super().__init__()
        self._archive, self._bounds = archive, bounds
        self._budget = _Budget(archive.name, bounds.received_bytes, bounds.total_s)

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
        """As any adapter, but only to the archive itself, and to nowhere else from there."""
        if urlsplit(request.url)[:2] != urlsplit(self._archive.url)[:2]:
            raise ServerError(
                f"The archive {self._archive.name} names an address of another host, which is not "
                "followed; ask its administrator."
            )
        response = super().send(request, **{**options, "timeout": self._bounds.idle_s})
        if response.is_redirect or response.is_permanent_redirect:
            response.close()
            raise ServerError(
                f"The archive {self._archive.name} redirects to another address, which is not "
                "followed; give the final one in the settings."
            )
        response.raw = _Counted(response.raw, self._budget)
        return response


class _Budget:
    """Bytes and seconds that are left of a conversation."""

    def __init__(self, name: str, left_bytes: int, total_s: float) -> None:
        self._name, self._left = name, left_bytes
        self._end = time.monotonic() + total_s

    def take(self, count: int) -> None:
        """Raises ServerError when more was received, or more time has passed, than is allowed."""
        self._left -= count
        if self._left < 0:
            raise ServerError(
                f"The archive {self._name} sends more than is allowed for one image; choose a "
                "smaller series, or allow more in the settings."
            )
        if time.monotonic() > self._end:
            raise ServerError(
                f"The archive {self._name} is too slow: the series did not arrive within the time "
                "that is allowed; try again later."
            )


class _Counted:
    """The body of an answer, whose every piece, decompressed, is taken from a budget."""

    def __init__(self, raw: Any, budget: _Budget) -> None:
        self._raw, self._budget = raw, budget

    def stream(self, *arguments: Any, **options: Any) -> Iterator[bytes]:
        """As of urllib3."""
        for piece in self._raw.stream(*arguments, **options):
            self._budget.take(len(piece))
            yield piece

    def read(self, *arguments: Any, **options: Any) -> bytes:
        """As of urllib3."""
        piece: bytes = self._raw.read(*arguments, **options)
        self._budget.take(len(piece))
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)
