"""Polling jobs from Slicer's event loop."""

from __future__ import annotations

import time
from typing import Any

from RetRegLib.jobs import Job

INTERVAL_MS = 50
BREATH_S = 0.01


class Ticker:
    """Polls each job it is given with a timer of Qt until the job has ended.

    Where there is no Qt it does nothing: then the caller polls.
    """

    def __init__(self) -> None:
        self._timers: list[Any] = []  # a timer that nobody holds stops

    def __call__(self, job: Job[Any]) -> None:
        try:
            import qt
        except ImportError:
            return
        timer = qt.QTimer()
        timer.setInterval(INTERVAL_MS)

        def tick() -> None:
            # Slicer's event loop holds the interpreter's lock, which the job's thread needs.
            time.sleep(BREATH_S)
            try:
                job.poll()
            finally:
                if job.ended and timer in self._timers:
                    timer.stop()
                    self._timers.remove(timer)

        timer.timeout.connect(tick)
        self._timers.append(timer)
        timer.start()
