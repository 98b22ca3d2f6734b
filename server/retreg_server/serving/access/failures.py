"""How often an address has shown a wrong token."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

AT_ONCE, EACH_S, ADDRESSES = 100, 1.0, 10_000


class Failures:
    """A bucket of wrong tokens for each address: a hundred at once, then one a second.

    Right tokens always pass: others may share the address of one who guesses.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paid_until: OrderedDict[str, float] = OrderedDict()

    def retry_after_s(self, address: str) -> int:
        """Enter a failure; how long to wait before the next one is answered, 0 for not at all."""
        now = self._clock()
        paid_until = max(now, self._paid_until.pop(address, now))
        too_many = paid_until - now > (AT_ONCE - 1) * EACH_S
        self._paid_until[address] = paid_until if too_many else paid_until + EACH_S
        if len(self._paid_until) > ADDRESSES:
            self._paid_until.popitem(last=False)
        return 1 + int(paid_until - now - (AT_ONCE - 1) * EACH_S) if too_many else 0
