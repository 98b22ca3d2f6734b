"""From images to tensors and back: normalised coordinates, canonical axes, working volumes.

Normalised coordinates run from -1 to 1 from edge to edge (align_corners=False), in the order
(x, y, z) of the tensor axes (i, j, k). They do not change when a tensor is pooled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from retreg.geometry import apply_matrix
from retreg.image import Image
from retreg_server.registration.numerics.padding import scanned


@dataclass(frozen=True, eq=False)
class TensorVolume:
    """A tensor (1, c, k, j, i), float32, and the matrix of its normalised coordinates.

    world_from_norm: (4, 4) float64, takes normalised (x, y, z) to LPS mm.
    """

    tensor: torch.Tensor
    world_from_norm: np.ndarray

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along (i, j, k)."""
        k, j, i = self.tensor.shape[2:]
        return i, j, k

    @property
    def world_from_index(self) -> np.ndarray:
        """(4, 4), takes the index (i, j, k) of a voxel centre to LPS mm."""
        return self.world_from_norm @ np.linalg.inv(index_from_norm(self.size))

    @property
    def spacing(self) -> np.ndarray:
        """(3,) mm between neighbouring voxels along (i, j, k)."""
        lengths: np.ndarray = np.linalg.norm(self.world_from_index[:3, :3], axis=0)
        return lengths

    def pooled(self, factor: int) -> TensorVolume:
        """The average over blocks of factor^3 voxels; sizes must be multiples of factor."""
        return TensorVolume(functional.avg_pool3d(self.tensor, factor), self.world_from_norm)

    def voxel_centres(self) -> np.ndarray:
        """World points (n, 3) of all voxels, i running fastest."""
        k, j, i = np.indices(self.tensor.shape[2:], dtype=np.float64)
        return apply_matrix(
            self.world_from_index, np.stack([i.ravel(), j.ravel(), k.ravel()], axis=1)
        )


def index_from_norm(size: tuple[int, int, int]) -> np.ndarray:
    """(4, 4) from normalised coordinates to voxel indices (i, j, k)."""
    n = np.array(size, dtype=np.float64)
    matrix = np.diag([*(n / 2), 1.0])
    matrix[:3, 3] = (n - 1) / 2
    return matrix


def canonical(image: Image) -> TensorVolume:
    """The grey image, its axes permuted and flipped to lie closest to L, P and S, padding as air.

    Images that differ only in the order in which their voxels are stored give the same tensor.
    """
    direction = image.grid.direction
    axes = linear_sum_assignment(-np.abs(direction))[1]
    permutation = np.zeros((4, 4))
    permutation[axes, range(3)] = 1.0
    permutation[3, 3] = 1.0
    array = scanned(image).transpose([2 - axes[2], 2 - axes[1], 2 - axes[0]])
    matrix = image.grid.world_from_index @ permutation
    for axis in range(3):
        if matrix[axis, axis] < 0:
            flip = np.eye(4)
            flip[axis, axis] = -1.0
            flip[axis, 3] = array.shape[2 - axis] - 1
            matrix = matrix @ flip
            array = np.flip(array, 2 - axis)
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None, None]
    k, j, i = array.shape
    return TensorVolume(tensor, matrix @ index_from_norm((i, j, k)))


def isotropic(
    source: TensorVolume, spacing_mm: float, box: np.ndarray, multiple: int
) -> TensorVolume:
    """Resample source to cubic voxels along its own axes.

    box: (2, 3) corners in normalised coordinates of the part to keep. The sizes become multiples
    of multiple. Voxels smaller than spacing_mm are averaged first. A second channel says where
    the source has data (1) and where it does not (0).
    """
    pooled = _pooled_to(source, spacing_mm)
    half_mm = np.linalg.norm(source.world_from_norm[:3, :3], axis=0)
    extent = (box[1] - box[0]) * half_mm
    counts = np.maximum(np.ceil(extent / spacing_mm / multiple - 1e-6), 1).astype(int) * multiple
    source_from_norm = np.diag([*(counts * spacing_mm / 2 / half_mm), 1.0])
    source_from_norm[:3, 3] = box.mean(axis=0)
    shape = (int(counts[2]), int(counts[1]), int(counts[0]))
    with_validity = torch.cat([pooled.tensor, torch.ones_like(pooled.tensor)], dim=1)
    world_from_norm = source.world_from_norm @ source_from_norm
    tensor = sample(
        TensorVolume(with_validity, pooled.world_from_norm),
        TensorVolume(torch.empty(1, 1, *shape), world_from_norm),
        np.eye(4),
    )  # torch.empty only lends its shape here: no memory is touched
    # Half a voxel beyond the edge the data continues instead of fading to 0.
    tensor[:, :-1] /= tensor[:, -1:].clamp_min(1e-3)
    return TensorVolume(tensor, world_from_norm)


def _pooled_to(source: TensorVolume, spacing_mm: float) -> TensorVolume:
    """Average whole blocks so that the voxels come close to spacing_mm."""
    factors = np.minimum(np.maximum(np.round(spacing_mm / source.spacing), 1), source.size)
    i, j, k = (int(f) for f in factors)
    if i == j == k == 1:
        return source
    size = np.array(source.size)
    kept = size // factors * factors
    to_source = np.diag([*(kept / size), 1.0])
    to_source[:3, 3] = kept / size - 1
    tensor = functional.avg_pool3d(source.tensor, (k, j, i))
    return TensorVolume(tensor, source.world_from_norm @ to_source)


def sample(
    source: TensorVolume, target: TensorVolume, source_from_target: np.ndarray
) -> torch.Tensor:
    """Source seen on the lattice of target through a (4, 4) world matrix; 0 outside source.

    Returns (1, c, k, j, i) with the channels of source and the size of target.
    """
    matrix = np.linalg.inv(source.world_from_norm) @ source_from_target @ target.world_from_norm
    theta = torch.from_numpy(matrix[None, :3]).to(source.tensor.dtype)
    shape = [1, source.tensor.shape[1], *target.tensor.shape[2:]]
    grid = functional.affine_grid(theta, shape, align_corners=False)
    return functional.grid_sample(source.tensor, grid, align_corners=False)
