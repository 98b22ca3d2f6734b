"""One account for the bytes of images: those that arrive, are decoded, wait, and are kept.

Bytes are claimed before memory is taken, and counted for as long as something holds the claim. So
the account cannot drift: whatever fails on the way, the claim goes with what it was made for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from retreg_server.serving.errors import ApiError

RETRY_S = 5


class Account:
    """At most limit bytes. make_room: gives something up; False when there is nothing left."""

    def __init__(self, limit: int, make_room: Callable[[], bool]) -> None:
        self.limit = limit
        self._make_room = make_room
        self._claimed = 0
        self._lock = threading.RLock()  # a claim may be dropped by any thread, at any moment

    @property
    def claimed(self) -> int:
        """Bytes that are claimed now."""
        return self._claimed

    @property
    def room(self) -> int:
        """Bytes that can be claimed now, without giving anything up."""
        return max(0, self.limit - self._claimed)

    def claim(self, nbytes: int = 0) -> Claim:
        """So many bytes, on the event loop. Raises ApiError 503 when they are not there."""
        claim = Claim(self)
        claim.resize(nbytes)
        return claim

    def claim_up_to(self, most: int, least: int) -> Claim:
        """As many bytes as there is room for, but at least so many. Raises ApiError 503."""
        self.free(least)
        return self.claim(max(least, min(most, self.room)))

    def free(self, nbytes: int) -> None:
        """Give up what can be given up, until there is that much room."""
        while self.room < nbytes and self._make_room():
            pass

    def add(self, nbytes: int) -> None:
        """Count bytes, or fewer; for claims only."""
        with self._lock:
            self._claimed += nbytes


class Claim:
    """Bytes of an account; they return when nothing holds the claim any more."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.nbytes = 0

    def resize(self, nbytes: int) -> None:
        """Claim that many instead. Raises ApiError 503 when so many are not there."""
        more = nbytes - self.nbytes
        if more > 0:
            self._account.free(more)
            if self._account.room < more:
                raise _no_room()
        self._account.add(more)
        self.nbytes = nbytes

    def grow(self, more: int) -> None:
        """Claim more bytes. Raises ApiError 503."""
        self.resize(self.nbytes + more)

    def __del__(self) -> None:
        self._account.add(-self.nbytes)


def _no_room() -> ApiError:
    """The answer to what does not fit beside what is there now."""
    sentence = "The memory of the server is full of images that are in use; try again later."
    return ApiError(503, "busy", sentence, {"Retry-After": str(RETRY_S)})
