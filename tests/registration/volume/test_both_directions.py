"""Two directions at once: results, progress, and an end when nobody wants them any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from retreg.errors import Cancelled, RegistrationError
from retreg_server.registration.model import Stages
from retreg_server.registration.volume.both_directions import both_directions


@pytest.fixture(params=[1, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """The number of threads that torch has; as it was afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def steps(count: int, seen: dict[str, int], name: str):
    """Work of count steps that notes how many threads torch has."""

    def work(stages: Stages) -> str:
        for step in range(count):
            seen[name] = torch.get_num_threads()
            stages.at(step / count)
            time.sleep(0.01)
        stages.at(1.0)
        return name

    return work


def test_both_results_come_back_in_order_and_the_threads_are_shared(threads):
    seen: dict[str, int] = {}
    both = both_directions(steps(3, seen, "a"), steps(12, seen, "b"), Stages())
    assert both == ("a", "b")
    assert seen == dict.fromkeys("ab", max(1, threads // 2))
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("threads")
def test_progress_rises_and_is_heard_in_the_calling_thread_only():
    heard: list[float] = []

    def progress(_stage: str, done: float) -> None:
        assert threading.current_thread() is threading.main_thread()
        heard.append(done)

    both_directions(steps(3, {}, "a"), steps(30, {}, "b"), Stages(progress))
    assert heard == sorted(heard)
    assert heard[-1] > 0.6


@pytest.mark.usefixtures("threads")
def test_cancelling_ends_both_soon():
    calls: list[float] = []

    def progress(_stage: str, done: float) -> None:
        calls.append(done)
        if len(calls) == 3:
            raise Cancelled("Stopped by the test.")

    began = time.monotonic()
    with pytest.raises(Cancelled, match="by the test"):
        both_directions(steps(3, {}, "a"), steps(1000, {}, "b"), Stages(progress))
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("which", [0, 1])
def test_what_either_raises_is_raised(threads, which):
    def fail(_stages: Stages) -> str:
        raise RegistrationError("No.")

    works = [steps(2, {}, "a"), steps(2, {}, "b")]
    works[which] = fail
    with pytest.raises(RegistrationError, match="No"):
        both_directions(*works, Stages())
    assert torch.get_num_threads() == threads
