"""Which accepted pairs contradict the others, and which view is the middle of those that remain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retreg_server.mosaic.adjustment import Seam, solved
from retreg_server.mosaic.plane import Plane

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MOST_MISSED = 0.02  # of the radius of a view; what bends far from the middle is less


def contradictory(
    planes: Sequence[Plane], seams: Sequence[Seam], evidence: Sequence[float], reference: int
) -> list[int]:
    """The numbers of the seams that contradict the others where ways between views meet.

    As long as stiff maps miss a seam, the seam is dropped without which they miss least. Where
    several would do, as in a single loop, that is the one with the least evidence.
    """
    kept, dropped = list(range(len(seams))), list[int]()
    while len(kept) >= len(planes):  # else no way leads back to where it began
        missed = _missed(planes, [seams[n] for n in kept], reference)
        suspects = [n for n, far in zip(kept, missed, strict=True) if far > 0]
        left = {
            n: float(_missed(planes, rest, reference).sum())
            for n in suspects
            if _join_all(len(planes), rest := [seams[m] for m in kept if m != n])
        }
        if not left:
            break
        worst = min(left, key=lambda n: (left[n], evidence[n]))
        kept.remove(worst)
        dropped.append(worst)
    return sorted(dropped)


def _missed(planes: Sequence[Plane], seams: Sequence[Seam], reference: int) -> np.ndarray:
    """(n,) by how much more than is allowed stiff maps miss each seam, in the median."""
    limit_mm = MOST_MISSED * planes[reference].radius
    points = sum(len(seam.weights) for seam in seams) / len(planes)
    weights = [np.ones(len(seam.weights)) for seam in seams]
    maps = solved(planes, seams, weights, reference, limit_mm * points**0.5, bends=True)
    misses = np.array([np.median(seam.misses(maps)) for seam in seams])
    return np.maximum(misses - limit_mm, 0.0)


def _join_all(count: int, seams: Sequence[Seam]) -> bool:
    """Whether seams lead from each of count views to all others."""
    from scipy.sparse.csgraph import connected_components

    return bool(connected_components(_graph(count, [(s.first, s.second) for s in seams]))[0] == 1)


def middle(count: int, seams: Sequence[tuple[int, int]]) -> int:
    """Of count views the one from which the way over seams to the farthest other one is shortest.

    Views to which no way leads have no say; among equals the one nearest to all.
    """
    from scipy.sparse.csgraph import shortest_path

    steps = shortest_path(_graph(count, seams), directed=False, unweighted=True)
    steps[~np.isfinite(steps)] = 0
    joined = {number for ends in seams for number in ends}
    return int(min(joined, key=lambda n: (steps[n].max(), steps[n].sum())))


def _graph(count: int, ends: Sequence[tuple[int, int]]) -> csr_array:
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(ends)), np.array(ends).T), shape=(count, count))
