"""A transform on every voxel of a grid, in pieces small enough for the cache."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from retreg.composed_field import FieldLattice
from retreg.geometry import Grid, apply_matrix
from retreg.splines.on_grid import SplineLattice
from retreg.splines.separable_interpolation import Lattice, linear_weights
from retreg.transforms import FIELD_TOLERANCE_MM, ThinPlateSpline, Transform, as_field

TOLERANCE_VOXELS = 0.05  # bound on the error of a thin-plate spline; the mean is far smaller


class VoxelMap(Protocol):
    """Three numbers for every voxel of a grid."""

    def block(self, planes: slice, rows: slice) -> np.ndarray:
        """(3, k, j, i) in some planes (k) and rows (j), all columns."""


def voxel_map(
    transform: Transform, grid: Grid, frame: np.ndarray, tolerance_mm: float | None = None
) -> VoxelMap:
    """The moving points of all voxel centres of grid, in the frame (4, 4) from the moving world.

    Thin-plate splines keep a bound of TOLERANCE_VOXELS of the smallest spacing of grid (see
    SplineLattice), fields parallel to grid are exact (FieldLattice); everything else is sampled as
    by as_field. tolerance_mm: of both approximations, in place of their own.
    """
    if isinstance(transform, ThinPlateSpline) and transform.bends:
        bound = _tolerance_mm(grid) if tolerance_mm is None else tolerance_mm
        return SplineLattice.of(transform.spline, grid, bound, frame)
    exact = FieldLattice.of(transform, grid, frame)
    if exact is not None:
        return exact
    field = as_field(transform, grid, FIELD_TOLERANCE_MM if tolerance_mm is None else tolerance_mm)
    moved = apply_matrix(frame, field.grid.lattice() + field.vectors_mm.reshape(3, -1).T)
    nodes = np.ascontiguousarray(moved.T).reshape(3, *field.grid.shape)
    over_i, over_j, over_k = (linear_weights(grid, field.grid, axis) for axis in range(3))
    return Lattice(nodes, (over_i, over_j, over_k))


def displacements(transform: Transform, grid: Grid) -> np.ndarray:
    """(3, k, j, i) float32 LPS mm: transform(x) - x at every voxel centre x of grid.

    Accurate as voxel_map, and little memory but for the result.
    """
    if isinstance(transform, ThinPlateSpline) and transform.bends:
        return SplineLattice.of(transform.spline, grid, _tolerance_mm(grid)).whole()
    exact = FieldLattice.of(transform, grid, None)
    if exact is not None:
        return exact.whole()
    field = as_field(transform, grid)
    over_i, over_j, over_k = (linear_weights(grid, field.grid, axis) for axis in range(3))
    lattice = Lattice(field.vectors_mm, (over_i, over_j, over_k))
    out = np.empty((3, *grid.shape), np.float32)
    for k in range(grid.size[2]):
        out[:, k : k + 1] = lattice.block(slice(k, k + 1), slice(0, grid.size[1]))
    return out


def _tolerance_mm(grid: Grid) -> float:
    return TOLERANCE_VOXELS * float(grid.spacing[np.array(grid.size) > 1].min(initial=1.0))
