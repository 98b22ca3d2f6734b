"""Work in threads: NumPy releases the interpreter while it computes on arrays.

The linear algebra library below NumPy starts threads of its own for large products. They wait
busily, and inside our threads they take the cores from each other: some things then take ten times
as long. Products up to SMALL_PRODUCT stay in the thread that asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

SMALL_PRODUCT = 1 << 18  # multiplications; OpenBLAS's own limit

Piece = TypeVar("Piece")


def in_threads(work: Callable[[Piece], None], pieces: Iterable[Piece]) -> None:
    """Call work for every piece, on all cores; the first exception is raised here.

    In a process that is told to keep to one core (OMP_NUM_THREADS = 1), in this thread.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1":
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, pieces):
            pass


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left (…, m, k) @ right (…, k, n), in pieces of a few rows that need no further threads."""
    m, k = left.shape[-2:]
    n = right.shape[-1]
    stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    out = np.empty((*stack, m, n), np.result_type(left, right))
    rows = max(1, SMALL_PRODUCT // (k * n))
    for start in range(0, m, rows):
        part = slice(start, start + rows)
        np.matmul(left[..., part, :], right, out=out[..., part, :])
    return out
