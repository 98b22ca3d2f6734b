"""What the volumes themselves say of a registration: do the structures meet, everywhere?"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch.nn import functional

from retreg.geometry import Grid
from retreg.image import Image
from retreg.quality import normalised_mutual_information
from retreg.resample import resample
from retreg.transforms import Affine, Transform
from retreg_server.registration.numerics.spaces import (
    TensorVolume,
    bounded_spacing,
    canonical,
    isotropic,
    sample,
)
from retreg_server.registration.numerics.volume_features import mind_ssc
from retreg_server.registration.preprocessing.foreground import WHOLE, Foreground, find_foreground

SPACING = 3.0  # mm between the voxels in which the quality is measured
BLOCK = 6  # voxels along a side of a block
SHIFTS = (-3, 0, 3)  # voxels along each axis by which a block may find itself elsewhere
DEEP = 8.0  # mm below the surface: two masks may share an outline and nothing else
WHOLLY, NEAR = 0.99, 2  # of a voxel that counts; voxels that see those that do not
VALID = 0.6  # share of a block that must be object in both volumes


class VolumeQuality:
    """The two volumes prepared once, then measured under any transform."""

    def __init__(self, fixed: Image, moving: Image) -> None:
        self._fixed, self._fixed_depth, fixed_slab_mm = _prepared(fixed, "fixed")
        self._moving, self._moving_depth, moving_slab_mm = _prepared(moving, "moving")
        self._slab_mm = min(fixed_slab_mm, moving_slab_mm)
        self.grid = self._fixed.grid
        self._mind = _descriptors(self._fixed)

    @property
    def points(self) -> np.ndarray:
        """LPS mm (n, 3) of every third voxel of the fixed object, along each axis."""
        thin = np.zeros(self.grid.shape, bool)
        thin[::3, ::3, ::3] = True
        return self.grid.lattice()[((self._fixed_depth.array[0] > 0) & thin).ravel()]

    def unmoved(self) -> dict[str, float]:
        """agreement and nmi as the volumes lie in the world."""
        numbers = self.measure(Affine.identity())
        return {name: numbers[name] for name in ("agreement", "nmi")}

    def measure(self, transform: Transform) -> dict[str, float]:
        """overlap, agreement (share of blocks), mind distance and nmi under transform.

        Also slab_mm, the thickness of the thinner one, where one is a slab.
        """
        warped = resample(self._moving, transform, self.grid, fill=0)
        depth = resample(self._moving_depth, transform, self.grid, fill=0).array[0]
        depths = np.minimum(depth, self._fixed_depth.array[0])
        both = depths > 0
        smaller = min((depth > 0).sum(), (self._fixed_depth.array[0] > 0).sum())
        costs = _shifted_costs(self._mind, _descriptors(warped))
        agreement, blocks = _agreement(costs, torch.from_numpy(depths > DEEP))
        unshifted = costs[len(costs) // 2].numpy()
        return {
            "overlap": float(both.sum() / max(smaller, 1)),
            "agreement": agreement,
            "blocks": blocks,
            "mind": float(unshifted[both].mean()) if both.any() else 1.0,
            "nmi": normalised_mutual_information(self._fixed.array[0][both], warped.array[0][both]),
            **({"slab_mm": self._slab_mm} if np.isfinite(self._slab_mm) else {}),
        }


def _prepared(image: Image, role: str) -> tuple[Image, Image, float]:
    """The volume in cubic voxels of SPACING, the depth below its surface on the same grid, and its
    thickness in mm if it is a slab (else infinity)."""
    source = canonical(image)
    foreground = find_foreground(source, role)
    working = isotropic(source, SPACING, _box(source, foreground), 1)
    depth = sample(foreground.depth_mm, working, np.eye(4))
    if source.counted is not None:  # descriptors beside what does not count have seen it
        uncounted = (working.tensor[:, 1:] < WHOLLY).float()
        near = functional.max_pool3d(uncounted, 2 * NEAR + 1, 1, NEAR)
        depth = torch.where(near > 0, torch.full_like(depth, -DEEP), depth)
    grid = Grid(working.size, working.world_from_index)
    sides_mm = image.grid.spacing * image.grid.size  # the foreground counts in coarse voxels
    slab_mm = min(foreground.thickness_mm, sides_mm.min()) if foreground.is_slab else np.inf
    return Image(working.tensor[0, :1].numpy(), grid), Image(depth[0].numpy(), grid), slab_mm


def _box(source: TensorVolume, foreground: Foreground) -> np.ndarray:
    """The whole volume, or the object alone where that takes too many voxels of SPACING."""
    half_mm = np.linalg.norm(source.world_from_norm[:3, :3], axis=0)
    if bounded_spacing(2 * half_mm, SPACING) == SPACING:
        return WHOLE
    margin = 2 * BLOCK * SPACING / half_mm
    return foreground.box + np.stack([-margin, margin])


def _descriptors(volume: Image) -> torch.Tensor:
    return mind_ssc(torch.from_numpy(volume.array[None]))


def _shifted_costs(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """(shifts, k, j, i) mean squared difference of the descriptors for every shift.

    What is shifted out of the volume comes in again on its other side.
    """
    reach, around = max(SHIFTS), warped
    for axis, size in enumerate(fixed.shape[2:], 2):
        around = around.index_select(axis, torch.arange(-reach, size + reach) % size)
    costs = []
    for shift in product(SHIFTS, repeat=3):
        seen = around  # rolling would copy all of it, once for each axis
        for axis, (step, size) in enumerate(zip(shift, fixed.shape[2:], strict=True), 2):
            seen = seen.narrow(axis, reach - step, size)
        costs.append((fixed - seen).square_().mean(dim=(0, 1)))
    return torch.stack(costs)


def _agreement(costs: torch.Tensor, both: torch.Tensor) -> tuple[float, float]:
    """Share of blocks that fit best where the transform put them, and their number.

    Unrelated volumes agree in about 1 block of 27 (one for every shift).
    """
    weight = both.float()[None]
    block = [min(BLOCK, n) for n in both.shape]  # a slab may be thinner than a block
    covered = functional.avg_pool3d(weight, block)[0]
    usable = covered > VALID
    if not usable.any():
        return 0.0, 0.0
    means = functional.avg_pool3d(costs * weight, block)[:, usable]
    found = means.argmin(dim=0) == len(costs) // 2
    return float(found.float().mean()), float(usable.sum())
