"""The local deformation that is left after a global transform, from tracked vessels.

Many points on vessels are tracked from one picture to the other and back, and a smooth field that
follows them without folding fills the space between them; what looks different there counts less.
Then the picture is bent by that field, and the points are tracked once more over the short way that
is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg_server.registration.parametric_refinement import Level, sampled
from retreg_server.registration.smooth_field import smooth_field
from retreg_server.registration.vessel_agreement import PixelMap
from retreg_server.registration.vessel_tracking import resemblance, tracked

SHRINK = 4  # full-size pixels per node of the residual
MOST_POINTS = 3000
LEAST_VESSEL = 0.1  # of the map: what is weaker is noise
SMALLEST_JACOBIAN = 0.3
STIFFER = 10.0  # times, when a field folds or squeezes too much


@dataclass(frozen=True)
class Round:
    """Tracking with a window and a longest way in pixels, then a field of that bending."""

    window: int
    farthest: float
    bending: float


ROUNDS = (Round(41, 20.0, 100.0), Round(41, 20.0, 100.0))


def dense_residual(
    fixed: Level, moving: Level, mapped: PixelMap, start: Level | None = None
) -> Level:
    """A level whose samples (h, w, 2) are displacements d in pixels: x goes to mapped(x + d(x)).

    fixed, moving: full-size levels (factor 1). mapped: fixed to moving pixels. start: displacements
    that are known already, such as those of a network, in the same form; where no vessels are
    found they stay as they are.
    """
    points = fixed.structured_points
    points = points[sampled(fixed, points)[0][:, 0] > LEAST_VESSEL]
    points = points[:: max(1, len(points) // MOST_POINTS)]
    height, width = fixed.valid.shape
    nothing = Level(np.zeros((2, 2, 2), np.float32), np.ones((2, 2), bool), max(height, width))
    start = start or nothing
    if not len(points):
        return start
    known = displaced(start, points) - points
    current = start
    for step in ROUNDS:
        through = _through(current, mapped)
        way, weights = tracked(points, fixed, moving, through, step.window, step.farthest)
        weights = weights * resemblance(points, way, fixed, moving, through)
        shifts = displaced(current, points + way) - points
        current = _unfolded(points, shifts - known, weights, start, (height, width), step.bending)
    return current


def displaced(residual: Level, points: np.ndarray) -> np.ndarray:
    """points (n, 2) in full-size pixels plus the residual there."""
    moved: np.ndarray = points + sampled(residual, points)[0]
    return moved


def _through(residual: Level, mapped: PixelMap) -> PixelMap:
    return lambda points: mapped(displaced(residual, points))


def _unfolded(
    points: np.ndarray,
    shifts: np.ndarray,
    weights: np.ndarray,
    start: Level,
    shape: tuple[int, int],
    bending: float,
) -> Level:
    """start plus a smooth field, which is made stiffer until the sum does not fold.

    When even a nearly affine field does, or no point was found, start is returned.
    """
    if not weights.any():
        return start
    rows, columns = (n // SHRINK for n in shape)
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    nodes = (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * SHRINK - 0.5
    before = sampled(start, nodes)[0]
    for stiffness in STIFFER ** np.arange(4):
        field = smooth_field(points, shifts, weights, shape, bending * stiffness)
        total = (before + field(nodes)).reshape(rows, columns, 2).astype(np.float32)
        if _smallest_jacobian(total) > SMALLEST_JACOBIAN:
            return Level(total, np.ones((rows, columns), bool), SHRINK)
    return start


def _smallest_jacobian(field: np.ndarray) -> float:
    down, across = np.gradient(field, SHRINK, axis=(0, 1))
    determinants = (1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0]
    return float(determinants.min())
