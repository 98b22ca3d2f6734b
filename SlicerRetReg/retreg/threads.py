"""Work in threads: NumPy releases the interpreter while it computes on arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")


def in_threads(work: Callable[[Piece], None], pieces: Iterable[Piece]) -> None:
    """Call work for every piece, on all cores; the first exception is raised here."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, pieces):
            pass
