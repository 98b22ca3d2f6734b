"""Transforms: frozen values that map fixed-world points to moving-world points (LPS mm).

That is the direction in which images are resampled, and the one ITK and Slicer's
transform-from-parent use. Every transform is called with points (n, 3) and returns (n, 3).
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Protocol

import numpy as np

from retreg import splines
from retreg.errors import GeometryError, InputError
from retreg.geometry import Grid, apply_matrix, checked_matrix
from retreg.splines.on_grid import SplineLattice


class Transform(Protocol):
    """Maps fixed-world points (n, 3) LPS mm to moving-world points (n, 3) LPS mm."""

    def __call__(self, points: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Affine:
    """moving = matrix · fixed, with a (4, 4) matrix in LPS mm.

    Raises GeometryError when the matrix is not finite or not invertible.
    """

    moving_from_fixed: np.ndarray

    def __post_init__(self) -> None:
        matrix = checked_matrix(self.moving_from_fixed, "The matrix from fixed to moving")
        object.__setattr__(self, "moving_from_fixed", matrix)

    @classmethod
    def identity(cls) -> Affine:
        """The transform that leaves every point where it is."""
        return cls(np.eye(4))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return apply_matrix(self.moving_from_fixed, np.asarray(points, dtype=np.float64))

    @property
    def inverse(self) -> Affine:
        """The affine that maps moving-world points back to fixed-world points."""
        return Affine(np.linalg.inv(self.moving_from_fixed))


@dataclass(frozen=True, eq=False)
class ThinPlateSpline:
    """The smoothing thin-plate spline through pairs of control points (see retreg.splines).

    fixed_points, moving_points: (n, 3) LPS mm. smoothing: dimensionless, 0 interpolates, infinity
    is the weighted least-squares affine. weights: (n,) positive, only their ratios matter; None
    means equal. kernel: "r" (Slicer can save and edit it) or "r2logr" (as in the literature).
    solved: its coefficients, where they are known already (see fitting.fit_tps_sweep).
    Raises DegeneratePointsError when the points do not determine the spline.
    """

    fixed_points: np.ndarray
    moving_points: np.ndarray
    smoothing: float = 0.0
    weights: np.ndarray | None = None
    kernel: splines.Kernel = "r"
    solved: InitVar[splines.Spline | None] = None
    spline: splines.Spline = field(init=False, repr=False)

    def __post_init__(self, solved: splines.Spline | None) -> None:
        points, weights = (self.fixed_points, self.moving_points), self.weights
        spline = solved or splines.fit_spline(*points, self.smoothing, weights, self.kernel)
        object.__setattr__(self, "spline", spline)
        self.affine_part  # noqa: B018 - checked now: bad points are reported where they arise

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return self.spline(np.asarray(points, dtype=np.float64))

    @property
    def bends(self) -> bool:
        """Whether it differs from an affine at all."""
        return bool(self.spline.coefficients.any())

    @property
    def affine_part(self) -> Affine:
        """The affine that the spline approaches as the smoothing grows."""
        return Affine(self.spline.affine)


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """moving = fixed + vector(fixed), linearly interpolated between the nodes of a grid.

    vectors_mm: (3, k, j, i) LPS mm on grid, which is usually coarser than the image. Outside the
    grid the displacement of its nearest edge continues. Raises InputError on a wrong shape.
    """

    vectors_mm: np.ndarray
    grid: Grid

    def __post_init__(self) -> None:
        vectors = np.array(self.vectors_mm, dtype=np.float64)
        if vectors.shape != (3, *self.grid.shape):
            raise InputError(
                f"The field has the shape {vectors.shape}; {(3, *self.grid.shape)} was expected."
            )
        if not np.isfinite(vectors).all():
            raise GeometryError("The displacement field holds numbers that are not finite.")
        vectors.flags.writeable = False
        object.__setattr__(self, "vectors_mm", vectors)

    @classmethod
    def sampled(cls, transform: Transform, grid: Grid) -> DisplacementField:
        """The field that equals transform at every node of grid."""
        nodes = grid.lattice()
        vectors = (transform(nodes) - nodes).T
        return cls(vectors.reshape(3, *grid.shape), grid)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, dtype=np.float64)
        return points + _interpolated(self.vectors_mm, self.grid.index(points))


@dataclass(frozen=True, eq=False)
class Chain:
    """Several transforms in a row: the first one is applied to the point first."""

    transforms: tuple[Transform, ...]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        for transform in self.transforms:
            points = transform(points)
        return points


FIELD_TOLERANCE_MM = 0.02


def as_field(
    transform: Transform,
    grid: Grid,
    tolerance_mm: float = FIELD_TOLERANCE_MM,
    most_nodes: float = np.inf,
) -> DisplacementField:
    """The coarsest displacement field that equals transform on grid within tolerance_mm.

    The lattice starts at 32 voxels and is halved until the mean error in the middle of its cells
    is below a fifth of the tolerance and the largest one below five times it, or until it has one
    node per voxel, or would have more than most_nodes. It encloses the whole image.
    """
    step = 32
    while True:
        field = _sampled(transform, grid.coarsened(step), tolerance_mm)
        if step == 1 or np.prod(grid.coarsened(step // 2).size, dtype=float) > most_nodes:
            return field
        middles = _cell_middles(field.grid)
        error = np.linalg.norm(field(middles) - transform(middles), axis=1)
        if error.mean() <= tolerance_mm / 5 and error.max() <= 5 * tolerance_mm:
            return field
        step //= 2


def _sampled(transform: Transform, grid: Grid, tolerance_mm: float) -> DisplacementField:
    if isinstance(transform, ThinPlateSpline) and transform.bends:
        vectors = SplineLattice.of(transform.spline, grid, tolerance_mm).whole()
        return DisplacementField(vectors, grid)
    return DisplacementField.sampled(transform, grid)


def _cell_middles(grid: Grid, at_most: int = 20_000) -> np.ndarray:
    """World points (n, 3) in the middle of the cells of a lattice, thinned to at_most."""
    middles = [np.arange(max(n - 1, 1)) + (0.5 if n > 1 else 0.0) for n in grid.size]
    i, j, k = np.meshgrid(*middles, indexing="ij")
    index = np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1)
    return grid.world(index[:: max(1, len(index) // at_most)])


def _interpolated(vectors: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Linear interpolation of (3, k, j, i) at fractional indices (n, 3); clamps at the edges."""
    sizes = np.array(vectors.shape[:0:-1])
    index = np.clip(index, 0, sizes - 1)
    low = np.minimum(index.astype(np.int64), np.maximum(sizes - 2, 0))
    fraction = index - low
    high = np.minimum(low + 1, sizes - 1)
    out = np.zeros((len(index), 3))
    for corner in range(8):
        upper = np.array([corner & 1, corner >> 1 & 1, corner >> 2 & 1], dtype=bool)
        weight = np.where(upper, fraction, 1 - fraction).prod(axis=1)
        i, j, k = np.where(upper, high, low).T
        out += weight[:, None] * vectors[:, k, j, i].T
    return out
