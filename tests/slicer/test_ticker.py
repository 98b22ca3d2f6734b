"""Polling by a timer, with a Qt of a few lines."""

from __future__ import annotations

import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from retreg.errors import ServerError


class Timer:
    """What QTimer does, on demand."""

    def __init__(self) -> None:
        self.interval, self.is_active, self.slots = 0, False, []
        self.timeout = SimpleNamespace(connect=self.slots.append)

    def setInterval(self, interval: int) -> None:
        self.interval = interval

    def start(self) -> None:
        self.is_active = True

    def stop(self) -> None:
        self.is_active = False

    def fire(self) -> None:
        for slot in self.slots:
            slot()


@pytest.fixture
def timers(slicer, monkeypatch) -> list[Timer]:
    """The timers that were made."""
    assert slicer
    made: list[Timer] = []
    qt = ModuleType("qt")
    qt.QTimer = lambda: made.append(Timer()) or made[-1]
    monkeypatch.setitem(sys.modules, "qt", qt)
    return made


def fire_until_stopped(timer: Timer) -> None:
    until = time.monotonic() + 5
    while timer.is_active:
        assert time.monotonic() < until
        timer.fire()


def test_a_timer_polls_until_the_job_has_ended(timers):
    from RetRegLib.jobs import Job
    from RetRegLib.ticker import Ticker

    values = []
    job = Job(lambda _: 42, on_done=values.append)
    job.start()
    Ticker()(job)
    [timer] = timers
    assert 0 < timer.interval <= 100
    fire_until_stopped(timer)
    assert values == [42]
    timer.fire()  # one that was on its way
    assert values == [42]


def test_the_timer_stops_when_a_callback_fails_or_the_job_is_cancelled(timers):
    from RetRegLib.jobs import Job
    from RetRegLib.ticker import Ticker

    def work(_):
        raise ServerError("Gone.")

    ticker, failing = Ticker(), Job(work)
    failing.start()
    ticker(failing)
    with pytest.raises(ServerError):
        fire_until_stopped(timers[0])
    assert not timers[0].is_active
    cancelled = Job(lambda _: time.sleep(0.2))
    cancelled.start()
    ticker(cancelled)
    cancelled.cancel()
    timers[1].fire()
    assert not timers[1].is_active


def test_without_qt_the_caller_polls(slicer, monkeypatch):
    assert slicer
    from RetRegLib.jobs import Job
    from RetRegLib.ticker import Ticker

    monkeypatch.setitem(sys.modules, "qt", None)  # importing it fails
    job = Job(lambda _: 42)
    job.start()
    Ticker()(job)
    time.sleep(0.2)
    assert not job.ended
    job.poll()
    assert job.ended
