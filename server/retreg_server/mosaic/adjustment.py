"""Where all views lie at once, so that what two of them show at one place meets.

Each view i has a quadratic map S_i from its plane to that of the reference view (Can et al. 2002).
S_i(p) = S_j(q) is wanted of every pair of control points p, q of the views i and j. That is linear
in the coefficients, so that the least squares have one answer and need no start; Cauchy weights
take the say from points that contradict all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retreg_server.mosaic.plane import LINEAR, Plane
from retreg_server.registration.fundus.pixel_maps import QuadraticMap

TERMS = 6  # coefficients of a quadratic map, for each axis
ROUNDS = 20
CAUCHY = 2.4  # robust deviations
BEND, STRETCH = 0.01, 0.05  # of the radius: how a view usually bends and stretches (deviations)
STILL = 1e-6  # of the radius, by which the last round changes the maps
_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class Seam:
    """Control points that two views share.

    first, second: the numbers of the views. points: (2, n, 2), in the plane of each. weights: (n,).
    """

    first: int
    second: int
    points: np.ndarray
    weights: np.ndarray

    def misses(self, maps: Sequence[QuadraticMap]) -> np.ndarray:
        """(n,) mm of the mosaic: how far apart the maps of the two views put each point."""
        first, second = maps[self.first](self.points[0]), maps[self.second](self.points[1])
        return np.linalg.norm(first - second, axis=1)


def adjusted(
    planes: Sequence[Plane], seams: Sequence[Seam], reference: int, bends: bool = True
) -> list[QuadraticMap]:
    """The map of every view to the plane of the reference, which stays where it is.

    bends: whether maps may be quadratic; else they are affine. Every view must be joined to the
    reference by seams.
    """
    weights = [seam.weights for seam in seams]
    maps = [plane.unmoved for plane in planes]
    noise_mm = 1.0
    for _ in range(ROUNDS):
        before = maps
        maps = solved(planes, seams, weights, reference, noise_mm, bends)
        misses = [seam.misses(maps) for seam in seams]
        noise_mm = max(1.4826 * float(np.median(np.concatenate(misses))), _LEAST)
        weights = [
            seam.weights / (1 + (missed / (CAUCHY * noise_mm)) ** 2)
            for seam, missed in zip(seams, misses, strict=True)
        ]
        if _change(before, maps) < STILL * planes[reference].radius:
            break
    return maps


def solved(
    planes: Sequence[Plane],
    seams: Sequence[Seam],
    weights: Sequence[np.ndarray],
    reference: int,
    noise_mm: float,
    bends: bool,
) -> list[QuadraticMap]:
    """The maps under which the weighted squares of what seams miss are smallest.

    A bend of BEND or a stretch of STRETCH costs as much as one control point that is missed by
    noise_mm.
    """
    count = 2 * TERMS * len(planes)
    normal = np.zeros((count, count))
    for seam, weight in zip(seams, weights, strict=True):
        rows = _rows(planes, seam)
        block = (rows * weight[:, None]).T @ rows
        for axis in range(2):
            columns = np.concatenate([_columns(seam.first, axis), _columns(seam.second, axis)])
            normal[np.ix_(columns, columns)] += block
    for number, plane in enumerate(planes):
        both = np.concatenate([_columns(number, axis) for axis in range(2)])
        is_mirrored = plane.is_mirrored != planes[reference].is_mirrored
        normal[np.ix_(both, both)] += _prior(noise_mm / plane.unmoved.radius, is_mirrored)
    return _with_one_known(planes, normal, reference, bends)


def _with_one_known(
    planes: Sequence[Plane], normal: np.ndarray, reference: int, bends: bool
) -> list[QuadraticMap]:
    """The least squares where the map of the reference is known."""
    every = np.arange(len(normal))
    is_known = every // (2 * TERMS) == reference
    is_free = ~is_known & (bends | (every % TERMS < LINEAR))
    value = np.zeros(len(normal))
    value[is_known] = planes[reference].unmoved.coefficients.ravel()
    right = -normal[np.ix_(is_free, is_known)] @ value[is_known]
    value[is_free] = np.linalg.solve(normal[np.ix_(is_free, is_free)], right)
    coefficients = value.reshape(len(planes), 2, TERMS)
    return [plane.quadratic(each) for plane, each in zip(planes, coefficients, strict=True)]


def _columns(number: int, axis: int) -> np.ndarray:
    """Where the coefficients of a view for one axis stand among all."""
    start: int = TERMS * (2 * number + axis)
    return np.arange(start, start + TERMS)


def _rows(planes: Sequence[Plane], seam: Seam) -> np.ndarray:
    """(n, 12) what one axis of the first view and of the second adds to what the seam misses."""
    bases = [
        planes[number].unmoved.basis(points)
        for number, points in zip((seam.first, seam.second), seam.points, strict=True)
    ]
    return np.hstack([bases[0], -bases[1]])


def _prior(noise: float, is_mirrored: bool) -> np.ndarray:
    """(12, 12) what bends and stretches cost; noise: of a control point, in radii."""
    x_of_u, x_of_v, y_of_u, y_of_v = 1, 2, TERMS + 1, TERMS + 2
    side = -1.0 if is_mirrored else 1.0
    stretches = np.zeros((2, 2 * TERMS))
    stretches[0, [x_of_u, y_of_v]] = 1.0, -side
    stretches[1, [x_of_v, y_of_u]] = 1.0, side
    is_bend = np.arange(2 * TERMS) % TERMS >= LINEAR
    prior: np.ndarray = (noise / STRETCH) ** 2 * stretches.T @ stretches
    return prior + (noise / BEND) ** 2 * np.diag(is_bend.astype(float))


def _change(before: Sequence[QuadraticMap], after: Sequence[QuadraticMap]) -> float:
    """The largest change of a coefficient, in mm."""
    return max(
        float(np.abs(a.coefficients - b.coefficients).max())
        for a, b in zip(before, after, strict=True)
    )
