"""How a caller hears of work that goes on, and ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from retreg.errors import Cancelled

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the fraction done (0 to 1).

It raises Cancelled when the work is no longer wanted; whoever calls it lets that pass through.
"""


def no_progress(_stage: str, _fraction: float) -> None:
    """Progress that tells nobody."""


class Teller:
    """Progress that repeats itself while nothing new is heard, so that it can end the work then."""

    EVERY_S = 0.5

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._is_unwanted = threading.Event()
        self._last: tuple[str, float] | None = None
        self._told_at = 0.0

    def __call__(self, stage: str, fraction: float) -> None:
        if self._is_unwanted.is_set():
            raise Cancelled("The registration was cancelled on request.")
        self._last, self._told_at = (stage, fraction), time.monotonic()
        self._progress(stage, fraction)

    def again(self) -> None:
        """Tell the same once more when that is due. Raises what progress raises, and Cancelled."""
        is_due = time.monotonic() - self._told_at >= self.EVERY_S
        if self._last is not None and (is_due or self._is_unwanted.is_set()):
            self(*self._last)

    def cancel(self) -> None:
        """Raise Cancelled at the next call; may be called by another thread."""
        self._is_unwanted.set()
