"""Work on a thread of its own, whose news the main thread fetches.

Nothing but work and abort runs on another thread, so neither may touch the scene or a widget.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from retreg.errors import Cancelled, RetRegError
from retreg.progress import Progress

T = TypeVar("T")
OnError = Callable[[RetRegError], None]


@dataclass(frozen=True)
class _Told:
    stage: str
    fraction: float


@dataclass(frozen=True)
class _Done(Generic[T]):
    value: T


@dataclass(frozen=True)
class _Failed:
    error: RetRegError


class Job(Generic[T]):
    """One call of work, with its news delivered by poll on the main thread.

    work: is given a function to report (stage, fraction from 0 to 1) with, which raises Cancelled
    once the job is cancelled. abort: wakes work that waits for something when the job is
    cancelled; runs on a third thread and may block.
    on_progress(stage, fraction), and exactly one of on_done(value), on_error(RetRegError) and
    on_cancelled(). Without on_error, poll raises the error.
    """

    def __init__(
        self,
        work: Callable[[Progress], T],
        on_progress: Progress | None = None,
        on_done: Callable[[T], None] | None = None,
        on_error: OnError | None = None,
        on_cancelled: Callable[[], None] | None = None,
        abort: Callable[[], None] | None = None,
    ) -> None:
        self._work: Callable[[Progress], T] | None = work
        self._on_progress = on_progress
        self._on_done = on_done
        self._on_error = on_error
        self._on_cancelled = on_cancelled
        self._abort = abort
        self._news: queue.SimpleQueue[_Told | _Done[T] | _Failed] = queue.SimpleQueue()
        self._unwanted = threading.Event()
        self.ended = False

    def start(self) -> None:
        """Begin the work; once."""
        assert self._work is not None
        work, self._work = self._work, None
        threading.Thread(target=self._run, args=(work,), name="RetReg job", daemon=True).start()

    def poll(self) -> None:
        """Deliver what is new; called on the main thread, often. Only the last progress counts."""
        told = None
        while not self.ended:
            try:
                news = self._news.get_nowait()
            except queue.Empty:
                break
            if isinstance(news, _Told):
                told = news
                continue
            self._report(told)
            told = None
            if not self.ended:  # a report may cancel
                self._end(news)
        self._report(told)

    def cancel(self) -> None:
        """End the job now, on the main thread; work that hangs is left behind and ends when it can.

        Does nothing when the job has ended.
        """
        if self.ended:
            return
        self._unwanted.set()
        abort, on_cancelled = self._abort, self._on_cancelled
        self._close()
        if abort is not None:
            waking = (abort,)
            threading.Thread(target=_wake, args=waking, name="RetReg abort", daemon=True).start()
        if on_cancelled is not None:
            on_cancelled()

    def _close(self) -> None:
        """Let go of the callbacks: whoever keeps the job must not keep the images in them."""
        self.ended = True
        self._work = self._abort = None
        self._on_progress = self._on_done = self._on_error = self._on_cancelled = None

    def _report(self, told: _Told | None) -> None:
        if told is not None and self._on_progress is not None:
            self._on_progress(told.stage, told.fraction)

    def _end(self, news: _Done[T] | _Failed) -> None:
        on_done, on_error = self._on_done, self._on_error
        self._close()
        if isinstance(news, _Done):
            if on_done is not None:
                on_done(news.value)
        elif on_error is None:
            raise news.error
        else:
            on_error(news.error)

    def _run(self, work: Callable[[Progress], T]) -> None:
        try:
            self._news.put(_Done(work(self._tell)))
        except Exception as error:
            self._news.put(_Failed(in_a_sentence(error)))

    def _tell(self, stage: str, fraction: float) -> None:
        if self._unwanted.is_set():
            raise Cancelled("The work was cancelled.")
        self._news.put(_Told(stage, fraction))


def _wake(abort: Callable[[], None]) -> None:
    with suppress(RetRegError):  # nobody waits for what it would tell
        abort()


def in_a_sentence(error: Exception) -> RetRegError:
    """The error itself when it was raised on purpose, else one that tells its kind and place.

    Its text is left out, for it may hold data of a patient.
    """
    if isinstance(error, RetRegError):
        return error
    if isinstance(error, MemoryError):
        return RetRegError("There is not enough memory; close other programs or crop the volumes.")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    told = RetRegError(
        f"Something went wrong that nobody foresaw ({type(error).__name__}{place}); please report "
        "it with what you did."
    )
    told.__cause__ = error
    return told


def counted(progress: Progress | None, what: str, number: int, total: int) -> Progress | None:
    """Tells progress of one of many as progress of all; number counts from 1."""
    if progress is None:
        return None

    def tell(stage: str, fraction: float) -> None:
        progress(f"{what} {number} of {total}: {stage}", (number - 1 + fraction) / total)

    return tell
