"""What the server may be told at start, with defaults that are safe on a laptop."""

from __future__ import annotations

from dataclasses import dataclass, field

from retreg.addresses import is_loopback
from retreg.errors import InputError

MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True)
class Settings:
    """Limits and secrets of one server.

    host: address to listen on; any but the machine's own needs a token. token: what clients send
    as bearer token. queue_size: jobs that may wait. max_image_bytes: one image, decoded.
    image_store_bytes, result_store_bytes: what is kept for later requests. keep_s: for how long.
    Raises InputError when the combination is not safe.
    """

    host: str = "127.0.0.1"
    port: int = 8600
    token: str | None = field(default=None, repr=False)
    queue_size: int = 16
    max_image_bytes: int = 2**30
    image_store_bytes: int = 2 * 2**30
    result_store_bytes: int = 2**29
    keep_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise InputError(
                f"The address {self.host} can be reached from other machines, so a token is "
                "needed; give --token-file, set RETREG_TOKEN, or listen on 127.0.0.1."
            )
        if self.token is not None and not _is_usable(self.token):
            raise InputError(
                f"The token is not usable; it needs at least {MIN_TOKEN_LENGTH} characters, none "
                "of which is a blank or outside ASCII."
            )


def _is_usable(token: str) -> bool:
    return len(token) >= MIN_TOKEN_LENGTH and all("!" <= letter <= "~" for letter in token)
