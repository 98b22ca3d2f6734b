"""Thin-plate splines on every voxel of a large grid, quickly and with a bound on the error.

Around each control point the kernel has a peak; elsewhere it is smooth. The spline without its
peaks is evaluated at every few voxels and interpolated by quintic splines, and the peaks are added
exactly at the few voxels that they reach. The distance of the nodes and the reach of the peaks are
chosen so that the error stays within a bound that follows from the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.geometry import Grid, apply_matrix
from retreg.splines.lattice_plan import plan_lattice
from retreg.splines.separable_interpolation import Lattice, spline_lattice_grid, spline_weights
from retreg.splines.softened_kernels import Softened
from retreg.splines.thin_plate import CHUNK, Spline, distance_factors
from retreg.threads import in_threads, product

PLANES = 8  # at a time


@dataclass(frozen=True, eq=False)
class Peaks:
    """The parts of the kernels that were taken off; they end at softened.radius_mm.

    indices: (n, 3) their centres in voxel indices of the grid. coefficients: (n, 3), for values in
    units of softened.scale.
    """

    indices: np.ndarray
    coefficients: np.ndarray
    softened: Softened
    grid: Grid

    def add(self, block: np.ndarray, planes: slice, rows: slice) -> None:
        """Add them to the values (3, k, j, i) of some planes and rows of the grid."""
        radius = self.softened.radius_mm
        reach = radius * np.linalg.norm(self.grid.index_from_world[:3, :3], axis=1)
        first = np.array([0, rows.start, planes.start])
        low = np.maximum(np.ceil(self.indices - reach).astype(int) - first, 0)
        high = np.floor(self.indices + reach).astype(int) + 1 - first
        high = np.minimum(high, np.array(block.shape[:0:-1]))
        for n in np.flatnonzero((low < high).all(axis=1)):
            window = tuple(slice(*ends) for ends in zip(low[n][::-1], high[n][::-1], strict=True))
            bounds = zip(low[n], high[n], first - self.indices[n], strict=True)
            di, dj, dk = (
                (np.arange(start, end) + offset).astype(np.float32) for start, end, offset in bounds
            )
            peak = self.softened.peak(self._squared(di, dj, dk))
            for component, factor in zip(block, self.coefficients[n], strict=True):
                component[window] += block.dtype.type(factor) * peak

    def _squared(self, di: np.ndarray, dj: np.ndarray, dk: np.ndarray) -> np.ndarray:
        """(k, j, i) squared distances at index offsets from a centre, in radii, at most 1."""
        steps = self.grid.world_from_index[:3, :3] / self.softened.radius_mm
        along_i, along_j, along_k = steps.T.astype(np.float32)
        line = dk[:, None, None] * along_k + dj[:, None] * along_j
        squared = (2 * (line @ along_i))[:, :, None] * di
        squared += (line**2).sum(axis=2)[:, :, None]
        squared += along_i @ along_i * di**2
        return np.clip(squared, 0, 1, out=squared)


@dataclass(frozen=True, eq=False)
class SplineLattice:
    """A thin-plate spline on all voxels of a grid, in pieces.

    steps: (3,) voxels between nodes. bound_mm: no point is further than this from the exact one
    (but for float32's rounding).
    """

    lattice: Lattice
    peaks: Peaks | None
    steps: np.ndarray
    bound_mm: float

    @classmethod
    def of(
        cls, spline: Spline, grid: Grid, tolerance_mm: float, frame: np.ndarray | None = None
    ) -> SplineLattice:
        """The cheapest one with an error bound of at most tolerance_mm.

        Its values are displacements in LPS mm, or, where the (4, 4) matrix frame from the moving
        world is given, the moving points in that frame.
        """
        plan = plan_lattice(spline, grid, tolerance_mm)
        softened = Softened(spline.kernel, plan.radius_mm) if plan.radius_mm > 0 else None
        node_grid = spline_lattice_grid(grid, plan.steps)
        points = node_grid.lattice()
        moved = _without_peaks(spline, points, softened)
        values = moved - points if frame is None else apply_matrix(frame, moved)
        over_i, over_j, over_k = (
            spline_weights(grid, node_grid, axis).astype(np.float32) for axis in range(3)
        )
        nodes = np.ascontiguousarray(values.T, dtype=np.float32).reshape(3, *node_grid.shape)
        lattice = Lattice(nodes, (over_i, over_j, over_k))
        linear = np.eye(3) if frame is None else frame[:3, :3]
        peaks = None
        if softened is not None:
            factors = softened.scale * spline.coefficients @ linear.T
            peaks = Peaks(grid.index(spline.centres), factors, softened, grid)
        return cls(lattice, peaks, plan.steps, plan.bound_mm)

    def block(self, planes: slice, rows: slice) -> np.ndarray:
        """(3, k, j, i) values in some planes (k) and rows (j) of the grid, all columns."""
        values = self.lattice.block(planes, rows)
        if self.peaks is not None:
            self.peaks.add(values, planes, rows)
        return values

    def whole(self) -> np.ndarray:
        """(3, k, j, i) float32 values on the whole grid."""
        over_i, over_j, over_k = (len(weights) for weights in self.lattice.weights)
        out = np.empty((3, over_k, over_j, over_i), np.float32)

        def fill(start: int) -> None:
            planes = slice(start, start + PLANES)
            out[:, planes] = self.block(planes, slice(0, over_j))

        in_threads(fill, range(0, over_k, PLANES))
        return out


def _without_peaks(spline: Spline, points: np.ndarray, softened: Softened | None) -> np.ndarray:
    """The spline with softened kernels, where given, at points (n, 3)."""
    if softened is None:
        return spline(points)
    out = apply_matrix(spline.affine, points)
    radius = softened.radius_mm
    factors = distance_factors(points / radius, spline.centres / radius)
    # The kernel r is small enough for float32, which is twice as fast; r^2 log r is not.
    kind = np.float32 if spline.kernel == "r" else np.float64
    left, right = (factor.astype(kind) for factor in factors)
    coefficients = (softened.scale * spline.coefficients).astype(kind)
    rows = max(16, CHUNK // len(spline.centres))

    def fill(start: int) -> None:
        part = slice(start, start + rows)
        squared = product(left[part], right)
        out[part] += softened(np.maximum(squared, 0, out=squared)) @ coefficients

    in_threads(fill, range(0, len(points), rows))
    return out
