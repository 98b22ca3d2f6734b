"""Grids: where the voxels of an image lie in the world (LPS, millimetres)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retreg.errors import GeometryError

MAX_AXIS = 100_000
MAX_COORDINATE_MM = 1e7


def apply_matrix(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points of shape (n, 3) by a (4, 4) matrix; returns (n, 3)."""
    # Written out: for so few columns the threads of the algebra library cost more than they save.
    x, y, z = points.T
    return np.stack([row[0] * x + row[1] * y + row[2] * z + row[3] for row in matrix[:3]], axis=1)


def checked_matrix(matrix: np.ndarray, name: str) -> np.ndarray:
    """A read-only float64 copy of a (4, 4) affine matrix.

    Raises GeometryError unless it is finite, invertible, and has (0, 0, 0, 1) as its last row.
    """
    copy = np.array(matrix, dtype=np.float64)
    if copy.shape != (4, 4):
        raise GeometryError(f"{name} has shape {copy.shape}; a (4, 4) matrix was expected.")
    if not np.isfinite(copy).all() or np.abs(copy).max() > MAX_COORDINATE_MM:
        raise GeometryError(f"{name} holds numbers that are not finite or beyond 10 km.")
    if not np.allclose(copy[3], (0, 0, 0, 1)):
        raise GeometryError(f"The last row of {name} is not (0, 0, 0, 1).")
    lengths = np.linalg.norm(copy[:3, :3], axis=0)
    volume = abs(np.linalg.det(copy[:3, :3]))
    if lengths.min() < 1e-7 or volume < 1e-6 * lengths.prod():
        raise GeometryError(f"{name} is not invertible: its axes are zero or lie in one plane.")
    copy.flags.writeable = False
    return copy


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice of voxel centres.

    size: number of voxels along (i, j, k); an array on the grid has shape (k, j, i).
    world_from_index: (4, 4), takes the index (i, j, k) of a voxel centre to LPS mm.
    Any direction is allowed, oblique and left-handed ones too. A picture has k = 1.
    Raises GeometryError when the size or the matrix cannot belong to an image.
    """

    size: tuple[int, int, int]
    world_from_index: np.ndarray

    def __post_init__(self) -> None:
        size = tuple(int(n) for n in self.size)
        if len(size) != 3 or min(size) < 1 or max(size) > MAX_AXIS:
            raise GeometryError(
                f"The grid size {size} is not usable; three counts from 1 to {MAX_AXIS} "
                "were expected."
            )
        object.__setattr__(self, "size", size)
        matrix = checked_matrix(self.world_from_index, "The matrix from index to world")
        object.__setattr__(self, "world_from_index", matrix)

    @classmethod
    def of_picture(cls, width: int, height: int) -> Grid:
        """The grid of a picture without a scale: pixel (x, y) is the point (x, y, 0)."""
        return cls((width, height, 1), np.eye(4))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape (k, j, i)."""
        return self.size[::-1]

    @property
    def is_plane(self) -> bool:
        """True for a single slice, such as a picture."""
        return self.size[2] == 1

    @cached_property
    def spacing(self) -> np.ndarray:
        """Distance in mm between neighbouring voxels along (i, j, k)."""
        return np.linalg.norm(self.world_from_index[:3, :3], axis=0)

    @cached_property
    def direction(self) -> np.ndarray:
        """(3, 3), unit vectors of the axes i, j, k as columns."""
        return self.world_from_index[:3, :3] / self.spacing

    @cached_property
    def index_from_world(self) -> np.ndarray:
        """(4, 4), the inverse of world_from_index."""
        return np.linalg.inv(self.world_from_index)

    @cached_property
    def centre(self) -> np.ndarray:
        """World point (3,) in the middle of the grid."""
        return apply_matrix(self.world_from_index, (np.array([self.size]) - 1) / 2)[0]

    @property
    def diagonal_mm(self) -> float:
        """Length from the first to the last voxel edge, in mm."""
        return float(np.linalg.norm(np.array(self.size) * self.spacing * self._used_axes))

    @property
    def is_unscaled_picture(self) -> bool:
        """True for the grid of a picture without a scale, whose world is its pixels."""
        return self.is_plane and np.array_equal(self.world_from_index, np.eye(4))

    @property
    def _used_axes(self) -> np.ndarray:
        return np.array([1, 1, 0 if self.is_plane else 1])

    def world(self, index: np.ndarray) -> np.ndarray:
        """LPS mm (n, 3) of fractional indices (n, 3) in the order i, j, k."""
        return apply_matrix(self.world_from_index, np.asarray(index, dtype=np.float64))

    def index(self, world: np.ndarray) -> np.ndarray:
        """Fractional indices (n, 3) in the order i, j, k of LPS mm points (n, 3)."""
        return apply_matrix(self.index_from_world, np.asarray(world, dtype=np.float64))

    def lattice(self, step: int = 1) -> np.ndarray:
        """World points (n, 3) of every step-th voxel, i running fastest."""
        axes = [np.arange(0, n, step, dtype=np.float64) for n in self.size]
        k, j, i = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        return self.world(np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1))

    def corners(self) -> np.ndarray:
        """World points (8, 3) of the outermost voxel edges."""
        edges = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in self.size)))
        return self.world(edges.reshape(3, -1).T)

    def contains(self, world: np.ndarray) -> np.ndarray:
        """(n,) bool: whether each point lies inside the outer voxel edges."""
        index = self.index(world)
        return np.all((index >= -0.5) & (index <= np.array(self.size) - 0.5), axis=1)

    def coarsened(self, step: int) -> Grid:
        """A grid of every step-th voxel centre that encloses every voxel edge of this one.

        A field sampled on it can be interpolated anywhere in the image without extrapolation.
        """
        factors = np.where(self._used_axes == 1, step, 1)
        counts = np.where(self._used_axes == 1, -(-(np.array(self.size) + 1) // factors) + 1, 1)
        spare = (counts - 1) * factors - (np.array(self.size) - 1)
        to_index = np.diag([*factors.astype(np.float64), 1.0])
        to_index[:3, 3] = -(spare // 2)
        i, j, k = (int(n) for n in counts)
        return Grid((i, j, k), self.world_from_index @ to_index)
