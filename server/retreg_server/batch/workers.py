"""Pairs on all cores: processes that share the engine of the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from retreg_server.batch.one_pair import Order, register_pair, write_failure
from retreg_server.batch.pairs import Pair

_DIED = (
    "The work on this pair ended unexpectedly, perhaps for want of memory; give smaller images or "
    "fewer workers."
)
Done = Callable[[], None]


def run_pairs(pairs: Sequence[Pair], order: Order, out: Path, workers: int, done: Done) -> None:
    """Register every pair into its folder below out; done is called in this process after each.

    A pair whose process dies is tried once more alone, and then has a failure as its result.
    """
    left = _run(pairs, order, out, workers, done)
    for pair in left:
        if _run([pair], order, out, 1, done):
            write_failure(pair, order, out / pair.name, _DIED)
            done()


def _run(
    pairs: Sequence[Pair], order: Order, out: Path, workers: int, done: Done
) -> list[Pair]:
    """Run the pairs; those that are left when a process died."""
    waiting = list(pairs)
    running: dict[Future[None], Pair] = {}
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, context, _begin, (workers,)) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    pair = waiting.pop(0)
                    running[pool.submit(register_pair, pair, order, out / pair.name)] = pair
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    del running[future]
                    done()
        except BrokenProcessPool:
            return [*running.values(), *waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return []


def _begin(workers: int) -> None:
    """In each process: one thread for each where there are several, and no life without parent."""
    if workers > 1:
        os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        import cv2

        cv2.setNumThreads(0)  # with 1, a child waits for ever for the threads that its parent has
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
