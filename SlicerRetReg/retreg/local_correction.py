"""A transform corrected by hand where points were put elsewhere, and unchanged everywhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np

from retreg.errors import DegeneratePointsError, InputError
from retreg.inverse import inverse_of
from retreg.splines.thin_plate import CHUNK, squared_distances
from retreg.transforms import Chain, Transform

LEAST_DETERMINANT = 0.1  # of the correction; at 0 it folds
_STEEPEST = 2.109375  # largest slope of the kernel, 20 r (1 - r)^3 at r = 1/4
_WIDER, _WIDENINGS = 1.25, 12
_SAME = 1e-6  # of the reach: points that are so near to each other count as one
_DIRECTIONS = np.array([d for d in product((-1.0, 0, 1), repeat=3) if any(d)])
_RINGS = np.array([0.05, 0.15, 0.25, 0.4, 0.6])
_ENOUGH_MM = 1e-3  # by which a moved point may be missed


@dataclass(frozen=True, eq=False)
class LocalCorrection:
    """x + sum_i c_i phi(|x - p_i| / reach): each p_i goes by its shift, what is beyond reach stays.

    phi(r) = (1 - r)^4 (4 r + 1) below 1 and 0 above, twice differentiable and positive definite in
    up to three dimensions (Wendland 1995, Piecewise polynomial, positive definite and compactly
    supported radial functions, psi_3,1), so the c_i that move every point exactly are unique.
    points, shifts_mm: (n, 3) LPS mm. reach_mm: above 0. Raises DegeneratePointsError when two
    points lie at the same place.
    """

    points: np.ndarray
    shifts_mm: np.ndarray
    reach_mm: float
    coefficients: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ratios = _ratios(self.points, self.points, self.reach_mm)
        if (ratios + np.eye(len(ratios)) < _SAME).any():
            raise DegeneratePointsError(
                "Two of the points that were moved lie at the same place; delete one of them."
            )
        solved = np.linalg.solve(_wendland(ratios), self.shifts_mm)
        object.__setattr__(self, "coefficients", solved)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        out = np.array(points, dtype=np.float64)
        low = self.points.min(axis=0) - self.reach_mm
        high = self.points.max(axis=0) + self.reach_mm
        near = np.flatnonzero(((out > low) & (out < high)).all(axis=1))
        rows = max(16, CHUNK // len(self.points))
        for start in range(0, len(near), rows):
            some = near[start : start + rows]
            ratios = _ratios(out[some], self.points, self.reach_mm)
            out[some] += _wendland(ratios) @ self.coefficients
        return out

    def determinants(self, points: np.ndarray) -> np.ndarray:
        """(n,) local change of volume at points (n, 3): 1 where nothing moves, 0 at a fold."""
        away = points[:, None] - self.points
        ratios = np.minimum(np.linalg.norm(away, axis=2) / self.reach_mm, 1)
        slopes = -20 * (1 - ratios) ** 3 / self.reach_mm**2
        bends = np.einsum("nk,ki,nkj->nij", slopes, self.coefficients, away)
        return np.linalg.det(np.eye(3) + bends)

    def smallest_determinant(self) -> float:
        """The smallest one on rings around the points, where a correction is steepest, and between
        them.
        """
        count = len(self.points)
        own = self.coefficients[:, None] * np.array([[1.0], [-1.0]])
        rays = np.concatenate([np.broadcast_to(_DIRECTIONS, (count, 26, 3)), own], axis=1)
        rays = rays / np.maximum(np.linalg.norm(rays, axis=2, keepdims=True), 1e-300)
        offsets = self.reach_mm * _RINGS[:, None] * rays[:, :, None]
        rings = (self.points[:, None, None] + offsets).reshape(-1, 3)
        between = (self.points[:, None] + self.points).reshape(-1, 3) / 2
        places = np.vstack([rings, between])
        rows = max(16, CHUNK // count)
        pieces = (places[start : start + rows] for start in range(0, len(places), rows))
        return float(min(self.determinants(piece).min() for piece in pieces))


def unfolded_correction(
    points: np.ndarray, shifts_mm: np.ndarray, reach_mm: float
) -> LocalCorrection:
    """The correction with the wanted reach, or the next larger one with which nothing folds.

    Raises InputError when there is none, as neighbours go too different ways.
    """
    furthest = float(np.linalg.norm(shifts_mm, axis=1).max())
    reach = max(reach_mm, _STEEPEST * furthest / (1 - LEAST_DETERMINANT) * (1 + 1e-9))
    for _ in range(_WIDENINGS):
        correction = LocalCorrection(points, shifts_mm, reach)
        if correction.smallest_determinant() >= LEAST_DETERMINANT:
            return correction
        reach *= _WIDER
    raise InputError(
        "Neighbouring points were moved in such different directions that the image would fold "
        "between them; move one of them back, or unselect it."
    )


def corrected(
    transform: Transform, fixed: np.ndarray, moving: np.ndarray, reach_mm: float
) -> Chain:
    """The transform after a local correction that takes each fixed to its moving point exactly.

    fixed, moving: (n, 3) LPS mm, n at least 1. Nothing changes further than the reach of the
    correction from all fixed points. It is reach_mm, or wider where the transform would else fold.
    Raises DegeneratePointsError for coincident points, and InputError where a moving point is out
    of what the transform reaches, or where any correction would fold.
    """
    aims = inverse_of(transform)(moving)
    if not np.linalg.norm(transform(aims) - moving, axis=1).max() <= _ENOUGH_MM:
        raise InputError(
            "A point was moved to where the result takes no point of the fixed image; move it "
            "nearer to where it was."
        )
    return Chain((unfolded_correction(fixed, aims - fixed, reach_mm), transform))


def correction_of(transform: Transform) -> LocalCorrection | None:
    """The correction with which a transform begins, if it does."""
    first = transform.transforms[0] if isinstance(transform, Chain) else None
    return first if isinstance(first, LocalCorrection) else None


def _ratios(points: np.ndarray, centres: np.ndarray, reach_mm: float) -> np.ndarray:
    squared = squared_distances(points, centres)
    return np.sqrt(np.maximum(squared, 0, out=squared), out=squared) / reach_mm


def _wendland(ratios: np.ndarray) -> np.ndarray:
    inside = np.maximum(1 - ratios, 0)
    return inside**4 * (4 * ratios + 1)
