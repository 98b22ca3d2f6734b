"""The way to a server: its address and token, kept in the settings, and a test of each step."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from retreg import wire
from retreg.addresses import is_loopback
from retreg.client import Client
from retreg.reachability import Step, steps

URL_KEY = "serverUrl"
TOKEN_KEY = "serverToken"
CA_FILE_KEY = "serverCaFile"
LOCAL_RESTART_S = 5.0  # nobody starts a server of this machine again

__all__ = ["Connection", "Step", "load_connection", "save_connection", "test_connection"]


@dataclass(frozen=True)
class Connection:
    """Where a server is, the token that it wants, and a file with the authority it shows."""

    url: str
    token: str = field(default="", repr=False)
    ca_file: str = ""

    def client(self) -> Client:
        """A client for one thread. Raises InputError for an unusable address."""
        # Networks are slower than zlib.
        encoding: wire.Encoding = "identity" if self.is_local else "zlib+shuffle"
        more = {"restart_timeout_s": LOCAL_RESTART_S} if self.is_local else {}
        ca_file = self.ca_file or None
        return Client(self.url, self.token or None, ca_file=ca_file, encoding=encoding, **more)

    @property
    def host(self) -> str:
        """Name or address of the machine; empty when the address is unusable."""
        try:
            return urlsplit(self.url).hostname or ""
        except ValueError:
            return ""

    @property
    def is_local(self) -> bool:
        """Whether what is sent stays on this machine."""
        return is_loopback(self.host)

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way can read what is sent."""
        return self.url.lower().startswith("https://")


def load_connection(settings: MutableMapping[str, str]) -> Connection | None:
    """The connection in the settings, if there is one."""
    url = settings.get(URL_KEY, "")
    more = (settings.get(key, "") for key in (TOKEN_KEY, CA_FILE_KEY))
    return Connection(url, *more) if url else None


def save_connection(settings: MutableMapping[str, str], connection: Connection) -> None:
    """Keep address and token together, so that no server is sent the token of another one."""
    settings[URL_KEY] = connection.url
    settings[TOKEN_KEY] = connection.token
    settings[CA_FILE_KEY] = connection.ca_file


def test_connection(
    connection: Connection,
    tell: Callable[[Step], None] | None = None,  # noqa: PT028 - not a test of pytest
) -> list[Step]:
    """The steps to a server (address, resolve, connect, TLS, health, token, models).

    Stops at the first that fails. tell: hears of each as soon as it is known. Takes seconds when
    nothing answers, so call it in a Job.
    """
    taken = []
    for step in steps(connection.url, connection.token or None, connection.ca_file or None):
        taken.append(step)
        if tell is not None:
            tell(step)
    return taken
