"""An event loop that knows how long its longest step took.

A step is what the loop does between two looks at its sockets: nobody else is answered meanwhile.
What counts is the time of the processor in the loop's thread, so that a busy machine does not
look like a slow server.
"""

from __future__ import annotations

import asyncio
import selectors
import time


class StepMonitor(selectors.DefaultSelector):
    """A selector that measures the steps between its calls."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: float | None = None
        self._longest_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As the selectors of the library; ends one step and begins the next."""
        if self._begun is not None:
            self._longest_s = max(self._longest_s, time.thread_time() - self._begun)
        found = super().select(timeout)
        self._begun = time.thread_time()
        return found

    def taken_longest_s(self) -> float:
        """Seconds of the longest step since this was asked last."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s


class MonitoredLoop(asyncio.SelectorEventLoop):
    """The event loop of a server."""

    def __init__(self) -> None:
        self.monitor = StepMonitor()
        super().__init__(self.monitor)
