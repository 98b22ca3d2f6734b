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

from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg_server.registration.numerics.padding import scanned

MOST_VOXELS = 6_000_000  # of a lattice whose voxel size is given in mm
MOST_STORED = 1 << 25  # voxels of an image that are kept as they are; 320^3 passes


@dataclass(frozen=True, eq=False)
class TensorVolume:
    """A tensor (1, c, k, j, i), float32, and the matrix of its normalised coordinates.

    world_from_norm: (4, 4) float64, takes normalised (x, y, z) to LPS mm. counted: as tensor, of
    one channel, 1 where the voxels of an image count and 0 where a mask leaves them out; or None.
    """

    tensor: torch.Tensor
    world_from_norm: np.ndarray
    counted: torch.Tensor | None = None

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
    image = _thinned(image)
    direction = image.grid.direction
    axes = linear_sum_assignment(-np.abs(direction))[1]
    permutation = np.zeros((4, 4))
    permutation[axes, range(3)] = 1.0
    permutation[3, 3] = 1.0
    array = scanned(image)[None]
    if image.counted is not None:
        array = np.stack([array[0], image.counted])
    array = array.transpose([0, 3 - axes[2], 3 - axes[1], 3 - axes[0]])
    matrix = image.grid.world_from_index @ permutation
    for axis in range(3):
        if matrix[axis, axis] < 0:
            flip = np.eye(4)
            flip[axis, axis] = -1.0
            flip[axis, 3] = array.shape[3 - axis] - 1
            matrix = matrix @ flip
            array = np.flip(array, 3 - axis)
    array = np.ascontiguousarray(array)
    if min(array.strides) < 0:  # an axis of one voxel, which NumPy leaves as it is
        array = array.copy()
    tensor = torch.from_numpy(array)[None]
    _, k, j, i = array.shape
    counted = tensor[:, 1:] if image.counted is not None else None
    return TensorVolume(tensor[:, :1], matrix @ index_from_norm((i, j, k)), counted)


def _thinned(image: Image) -> Image:
    """An image of more voxels than MOST_STORED with blocks of them averaged, finest axis first."""
    factors, spacing = np.ones(3, dtype=int), image.grid.spacing
    size = np.array(image.grid.size)
    while np.prod(size // factors, dtype=np.float64) > MOST_STORED:
        step = np.where(size // factors > 1, spacing * factors, np.inf)
        factors[int(step.argmin())] *= 2
    if (factors == 1).all():
        return image
    i, j, k = (int(n) for n in size // factors)
    fi, fj, fk = (int(n) for n in factors)
    array = np.empty((1, k, j, i), np.float32)
    for number in range(k):  # one layer at a time: the whole in float32 would be too large
        layer = Image(
            image.array[:, number * fk : (number + 1) * fk, : j * fj, : i * fi],
            Grid((i * fi, j * fj, fk), np.eye(4)),
        ).grey()
        array[0, number] = layer.reshape(fk, j, fj, i, fi).mean(axis=(0, 2, 4))
    to_index = np.diag([*factors.astype(np.float64), 1.0])
    to_index[:3, 3] = (factors - 1) / 2
    counted: np.ndarray | None = None
    if image.counted is not None:
        blocks = image.counted[: k * fk, : j * fj, : i * fi].reshape(k, fk, j, fj, i, fi)
        counted = np.all(blocks, axis=(1, 3, 5))
    grid = Grid((i, j, k), image.grid.world_from_index @ to_index)
    return Image(array, grid, counted=counted)


def bounded_spacing(
    extents_mm: np.ndarray, spacing_mm: float, most_voxels: int = MOST_VOXELS
) -> float:
    """spacing_mm, or coarser cubic voxels of which at most most_voxels fill each box.

    extents_mm: (3,) or (n, 3) sides of the boxes in mm. Whatever is allocated by a length in mm
    gets its voxel size here: lengths come from headers, which may say anything.
    """
    for extent in np.atleast_2d(extents_mm):
        while (share := np.ceil(extent / spacing_mm).clip(1).prod() / most_voxels) > 1:
            spacing_mm *= max(float(np.cbrt(share)), 1.01)
    return spacing_mm


def isotropic(
    source: TensorVolume, spacing_mm: float, box: np.ndarray, multiple: int
) -> TensorVolume:
    """Resample source to cubic voxels along its own axes.

    box: (2, 3) corners in normalised coordinates of the part to keep. The sizes become multiples
    of multiple. Voxels smaller than spacing_mm are averaged first. A second channel says where
    the source has data that count (1) and where it does not (0). Boxes that would take too many
    voxels get coarser ones.
    """
    half_mm = np.linalg.norm(source.world_from_norm[:3, :3], axis=0)
    extent = (box[1] - box[0]) * half_mm
    spacing_mm = bounded_spacing(extent, spacing_mm)
    pooled = _with_validity(source, spacing_mm)
    counts = np.maximum(np.ceil(extent / spacing_mm / multiple - 1e-6), 1).astype(int) * multiple
    source_from_norm = np.diag([*(counts * spacing_mm / 2 / half_mm), 1.0])
    source_from_norm[:3, 3] = box.mean(axis=0)
    shape = (int(counts[2]), int(counts[1]), int(counts[0]))
    world_from_norm = source.world_from_norm @ source_from_norm
    tensor = sample(
        pooled,
        TensorVolume(torch.empty(1, 1, *shape), world_from_norm),
        np.eye(4),
    )  # torch.empty only lends its shape here: no memory is touched
    # Half a voxel beyond the edge the data continues instead of fading to 0.
    tensor[:, :-1] /= tensor[:, -1:].clamp_min(1e-3)
    return TensorVolume(tensor, world_from_norm)


def _with_validity(source: TensorVolume, spacing_mm: float) -> TensorVolume:
    """The source pooled as by _pooled_to, times the channel that follows: what share counts."""
    if source.counted is not None:
        layers = [source.tensor * source.counted, source.counted]
        both = TensorVolume(torch.cat(layers, dim=1), source.world_from_norm)
        return _pooled_to(both, spacing_mm)
    pooled = _pooled_to(source, spacing_mm)
    layers = [pooled.tensor, torch.ones_like(pooled.tensor)]
    return TensorVolume(torch.cat(layers, dim=1), pooled.world_from_norm)


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
