"""Two directions of a registration at once, each on half of the processor.

Many short tensor operations leave a second thread of one operation idle, but not a second
direction with a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

import torch

from retreg.errors import Cancelled
from retreg_server.registration.model import Stages

LOOK_S = 0.1  # how often a caller that waits can say that the work is no longer wanted
Result = TypeVar("Result")


def both_directions(
    forward: Callable[[Stages], Result], backward: Callable[[Stages], Result], stages: Stages
) -> tuple[Result, Result]:
    """What both return; each gets stages of its own, in which it is all of the work.

    stages hears of both together, in the calling thread only. What it raises ends both. With a
    single thread for torch, backward follows forward.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return (
            forward(Stages(lambda _, done: stages.at(done / 2))),
            backward(Stages(lambda _, done: stages.at(0.5 + done / 2))),
        )
    done = [0.0, 0.0]
    unwanted = Event()

    def tell(_: str, fraction: float) -> None:
        done[0] = fraction
        stages.at(sum(done) / 2)

    def note(_: str, fraction: float) -> None:
        done[1] = fraction
        if unwanted.is_set():
            raise Cancelled("The other direction has ended early.")

    torch.set_num_threads(threads // 2)  # in this thread, and in those that begin after it
    try:
        with ThreadPoolExecutor(1, "direction") as pool:
            beside = pool.submit(backward, Stages(note))
            try:
                result = forward(Stages(tell))
                while not wait([beside], LOOK_S).done:
                    tell("", 1.0)
            except BaseException:
                unwanted.set()
                raise
        return result, beside.result()
    finally:
        torch.set_num_threads(threads)
