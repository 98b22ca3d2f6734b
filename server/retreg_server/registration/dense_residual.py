"""The local deformation that is left after a global transform, from tracked vessels.

Many points on vessels are tracked from one picture to the other and back. What they tell is filled
into the space between them by normalised convolution (Knutsson and Westin 1993), first widely and
then narrowly, with weights that fall for points that disagree with their neighbours.
"""

from __future__ import annotations

import cv2
import numpy as np

from retreg_server.registration.parametric_refinement import Level, QuadraticMap, sampled
from retreg_server.registration.vessel_tracking import tracked

SHRINK = 4  # full-size pixels per node of the residual
MOST_POINTS = 3000
LEAST_VESSEL = 0.35  # of the map: weaker ridges are often noise
WIDTHS = (0.06, 0.025, 0.012)  # standard deviations of the smoothing over the longer side
DOUBT = 1.0  # points' worth of "no displacement" in every window
TOLERANCE = 1.0  # pixels between a point and its neighbours that halve its weight
ROUNDS = 3
SMALLEST_JACOBIAN = 0.3


def dense_residual(fixed: Level, moving: Level, mapped: QuadraticMap) -> Level:
    """A level whose samples (h, w, 2) are displacements d in pixels: x goes to mapped(x + d(x))."""
    points = fixed.structured_points
    points = points[sampled(fixed, points)[0][:, 0] > LEAST_VESSEL]
    points = points[:: max(1, len(points) // MOST_POINTS)]
    shift, weights = tracked(points, fixed, moving, mapped)
    smooth = _smooth(points, shift, weights, fixed.valid.shape)
    return Level(_unfolded(smooth), np.ones(smooth.shape[:2], bool), SHRINK)


def displaced(residual: Level, points: np.ndarray) -> np.ndarray:
    """points (n, 2) in full-size pixels plus the residual there."""
    moved: np.ndarray = points + sampled(residual, points)[0]
    return moved


def _smooth(
    points: np.ndarray, shift: np.ndarray, weights: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """The smooth field (h, w, 2), SHRINK pixels per node, that the shifts (n, 2) support."""
    size = shape[0] // SHRINK, shape[1] // SHRINK
    column, row = np.rint((points + 0.5) / SHRINK - 0.5).astype(int).T
    node = np.clip(row, 0, size[0] - 1) * size[1] + np.clip(column, 0, size[1] - 1)
    robust = weights
    smooth = np.zeros((*size, 2), np.float32)
    for _ in range(ROUNDS):
        smooth = np.zeros((*size, 2), np.float32)
        for width in WIDTHS:
            rest = shift - smooth.reshape(-1, 2)[node]
            sums = [_spread(node, robust * part, size, width) for part in (1.0, *rest.T)]
            smooth += np.dstack(sums[1:]) / (sums[0] + DOUBT)[..., None]
        surprise = np.square((shift - smooth.reshape(-1, 2)[node]) / TOLERANCE).sum(axis=1)
        robust = weights / (1 + surprise)
    return smooth


def _spread(
    node: np.ndarray, values: np.ndarray, size: tuple[int, int], width: float
) -> np.ndarray:
    """Sums (h, w) of the values at the nodes under a Gaussian window whose peak is 1."""
    sigma = width * max(size)
    grid = np.bincount(node, values, size[0] * size[1]).reshape(size).astype(np.float32)
    spread: np.ndarray = cv2.GaussianBlur(grid, (0, 0), sigma) * np.float32(2 * np.pi * sigma**2)
    return spread


def _unfolded(field: np.ndarray) -> np.ndarray:
    """The field weakened as a whole until it neither folds nor squeezes too much."""
    down, across = np.gradient(field, SHRINK, axis=(0, 1))
    for strength in (1.0, 0.8, 0.6, 0.4, 0.2):
        jacobian = (1 + strength * across[..., 0]) * (1 + strength * down[..., 1]) - (
            strength**2 * across[..., 1] * down[..., 0]
        )
        if jacobian.min() > SMALLEST_JACOBIAN:
            return strength * field
    return np.zeros_like(field)
