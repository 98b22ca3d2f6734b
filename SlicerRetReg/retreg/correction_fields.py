"""A local correction as small displacement fields, which any viewer can show and save."""

from __future__ import annotations

import numpy as np

from retreg.geometry import Grid
from retreg.local_correction import LocalCorrection
from retreg.transforms import DisplacementField

MOST_NODES = 400_000  # of one field; more would not be drawn at once
_CURVATURE = 20.0  # largest second derivative of the kernel along one axis


def correction_fields(
    correction: LocalCorrection, grid: Grid, tolerance_mm: float
) -> tuple[DisplacementField, ...]:
    """Fields that equal the correction one after the other, within about tolerance_mm.

    One for each group of points whose surroundings meet, with the axes of grid; a single slice in
    the plane of a picture. Every field is 0 at its border, so nothing happens beyond it, whether a
    program continues a field there (Slicer) or not (ITK).
    """
    axes = 2 if grid.is_plane else 3
    largest = float(np.linalg.norm(correction.coefficients, axis=1).max())
    bend = axes * _CURVATURE * max(largest, tolerance_mm) / correction.reach_mm**2
    step = np.sqrt(8 * tolerance_mm / bend)
    along = np.linalg.inv(grid.direction) @ correction.points.T
    fields = []
    for group in _groups(correction):
        lattice = _lattice(along[:, group], grid, correction.reach_mm, float(step))
        part = LocalCorrection(
            correction.points[group], correction.shifts_mm[group], correction.reach_mm
        )
        fields.append(DisplacementField.sampled(part, lattice))
    return tuple(fields)


def _groups(correction: LocalCorrection) -> list[np.ndarray]:
    """The indices of the points, those together whose balls overlap, directly or through others."""
    away = np.linalg.norm(correction.points[:, None] - correction.points, axis=2)
    near = away < 2 * correction.reach_mm
    group = np.arange(len(near))
    for _ in range(len(near)):
        joined = np.where(near, group, len(near)).min(axis=1)
        if (joined == group).all():
            break
        group = joined
    return [np.flatnonzero(group == n) for n in np.unique(group)]


def _lattice(along: np.ndarray, grid: Grid, reach_mm: float, step_mm: float) -> Grid:
    """Around points whose mm along the axes of grid are (3, n); its first point is a node."""
    used = np.array([True, True, not grid.is_plane])
    first, low, high = along[:, 0], along.min(axis=1) - reach_mm, along.max(axis=1) + reach_mm
    volume = float(np.prod((high - low)[used]))
    step = max(step_mm, (volume / MOST_NODES) ** (1 / used.sum()))
    before = np.where(used, np.ceil((first - low) / step), 0).astype(int)
    after = np.where(used, np.ceil((high - first) / step), 0).astype(int)
    i, j, k = (int(n) for n in before + after + 1)
    placement = np.eye(4)
    placement[:3, :3] = grid.direction * step
    placement[:3, 3] = grid.direction @ (first - before * step)
    return Grid((i, j, k), placement)
