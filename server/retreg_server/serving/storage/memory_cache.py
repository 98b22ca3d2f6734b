"""A store in memory that forgets: the oldest leave when it is full, all leave after a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Container
from typing import Generic, TypeVar

Value = TypeVar("Value")


class MemoryCache(Generic[Value]):
    """Values by key, of limited size and age; reading one makes it young again.

    max_bytes: of all values together. keep_s: seconds for which an unused value stays. Used by
    one thread.
    """

    def __init__(
        self, max_bytes: int, keep_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._clock = clock
        self._entries: OrderedDict[str, tuple[Value, int, float]] = OrderedDict()
        self._bytes = 0

    def put(self, key: str, value: Value, nbytes: int) -> None:
        """Keep a value, even one that is larger than the cache: it leaves with the next one."""
        self.expire()
        self.pop(key)
        self._entries[key] = (value, nbytes, self._clock())
        self._bytes += nbytes
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            self.pop(next(iter(self._entries)))

    def get(self, key: str) -> Value | None:
        """The value, or None when there is none or it has been forgotten."""
        self.expire()
        if key not in self._entries:
            return None
        value, nbytes, _ = self._entries[key]
        self._entries[key] = (value, nbytes, self._clock())
        self._entries.move_to_end(key)
        return value

    def pop(self, key: str) -> bool:
        """Forget a value; False when there was none."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._bytes -= entry[1]
        return True

    def drop_oldest(self, but: Container[str] = ()) -> bool:
        """Forget the value that was not used for longest; False when there is none but those."""
        oldest = next((key for key in self._entries if key not in but), None)
        return oldest is not None and self.pop(oldest)

    @property
    def nbytes(self) -> int:
        """Of all values together."""
        return self._bytes

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bytes = 0

    def expire(self) -> None:
        """Forget what has not been used for too long."""
        oldest_allowed = self._clock() - self._keep_s
        while self._entries:
            key, (_, _, used) = next(iter(self._entries.items()))
            if used >= oldest_allowed:
                return
            self.pop(key)
