"""Which accepted pairs contradict the others, and which view is the middle of those that remain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retreg_server.mosaic.adjustment import Seam, solved
from retreg_server.mosaic.plane import Plane

ROUNDS = 50
LEAST_MISSED = 0.01  # of what is allowed, below which less gives a seam no more say
MOST_MISSED = 0.02  # of the radius of a view; what bends far from the middle is less


def contradictory(
    planes: Sequence[Plane], seams: Sequence[Seam], evidence: np.ndarray, reference: int
) -> list[int]:
    """The numbers of the seams that contradict the others where ways between views meet.

    The sum of what the seams miss, not of its squares, is made smallest over stiff maps: that is
    convex, and leaves as few seams as possible unmet, those with the least evidence (n,) first.
    """
    limit_mm = MOST_MISSED * planes[reference].radius
    say, misses = evidence, np.zeros(len(seams))
    for _ in range(ROUNDS):
        weights = [
            np.full(len(seam.weights), each / len(seam.weights))
            for seam, each in zip(seams, say, strict=True)
        ]
        stiffness_mm = limit_mm * float(np.sqrt(say.sum() / len(planes)))
        maps = solved(planes, seams, weights, reference, stiffness_mm, bends=False)
        misses = np.array([np.median(seam.misses(maps)) for seam in seams])
        say = evidence / np.maximum(misses / limit_mm, LEAST_MISSED)
    return np.flatnonzero(misses > limit_mm).tolist()


def middle(count: int, seams: Sequence[tuple[int, int]]) -> int:
    """Of count views the one from which the way over seams to the farthest other one is shortest.

    Views to which no way leads have no say; among equals the one nearest to all.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import shortest_path

    ends = np.array(seams).T
    graph = coo_array((np.ones(len(seams)), ends), shape=(count, count))
    steps = shortest_path(graph.tocsr(), directed=False, unweighted=True)
    steps[~np.isfinite(steps)] = 0
    joined = np.unique(ends)
    return int(min(joined, key=lambda n: (steps[n].max(), steps[n].sum())))
