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
from retreg.transforms import Transform
from retreg_server.registration.foreground import WHOLE, find_foreground
from retreg_server.registration.mind import mind_ssc
from retreg_server.registration.spaces import NetInput, canonical, isotropic

SPACING = 3.0  # mm between the voxels in which the quality is measured
BLOCK = 6  # voxels along a side of a block
SHIFTS = (-3, 0, 3)  # voxels along each axis by which a block may find itself elsewhere
VALID = 0.6  # share of a block that must be object in both volumes


class VolumeQuality:
    """The two volumes prepared once, then measured under any transform."""

    def __init__(self, fixed: Image, moving: Image) -> None:
        still, self._depth = _prepared(fixed, "fixed")
        self._moving, self._moving_depth = (_as_image(x) for x in _prepared(moving, "moving"))
        self._fixed = still
        self.grid = _grid(still)
        self._mind = mind_ssc(still.tensor)

    @property
    def points(self) -> np.ndarray:
        """LPS mm (n, 3) of every third voxel of the fixed object, along each axis."""
        thin = np.zeros(self.grid.shape, bool)
        thin[::3, ::3, ::3] = True
        return self.grid.lattice()[(self._inside & thin).ravel()]

    @property
    def _inside(self) -> np.ndarray:
        return self._depth.tensor[0, 0].numpy() > 0

    def measure(self, transform: Transform) -> dict[str, float]:
        """overlap, agreement (share of blocks), mind distance and nmi under transform."""
        warped = resample(self._moving, transform, self.grid).array
        inside = resample(self._moving_depth, transform, self.grid).array[0] > 0
        both = inside & self._inside
        smaller = min(inside.sum(), self._inside.sum())
        cost = _shifted_costs(self._mind, mind_ssc(torch.from_numpy(warped[None])))
        agreement, blocks = _agreement(cost, torch.from_numpy(both))
        fixed_values = self._fixed.tensor[0, 0].numpy()[both]
        return {
            "overlap": float(both.sum() / max(smaller, 1)),
            "agreement": agreement,
            "blocks": blocks,
            "mind": float(cost[len(cost) // 2][torch.from_numpy(both)].mean()) if blocks else 1.0,
            "nmi": normalised_mutual_information(fixed_values, warped[0][both]),
        }


def _prepared(image: Image, role: str) -> tuple[NetInput, NetInput]:
    """The volume in cubic voxels of SPACING, and the depth below its surface on the same grid."""
    source = canonical(image)
    foreground = find_foreground(source, role)
    working = isotropic(source, SPACING, WHOLE, 1)
    values = working.tensor[:, :1]
    depth = _on(foreground.depth_mm, working)
    return NetInput(values, working.world_from_norm), NetInput(depth, working.world_from_norm)


def _on(source: NetInput, target: NetInput) -> torch.Tensor:
    from retreg_server.registration.spaces import sample

    return sample(source, target, np.eye(4))


def _grid(volume: NetInput) -> Grid:
    return Grid(volume.size, volume.world_from_index)


def _as_image(volume: NetInput) -> Image:
    return Image(volume.tensor[0].numpy(), _grid(volume))


def _shifted_costs(fixed: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
    """(shifts, k, j, i) mean squared difference of the descriptors for every shift."""
    return torch.stack(
        [
            (fixed - torch.roll(warped, shift, (2, 3, 4))).square_().mean(dim=(0, 1))
            for shift in product(SHIFTS, repeat=3)
        ]
    )


def _agreement(costs: torch.Tensor, both: torch.Tensor) -> tuple[float, float]:
    """Share of blocks that fit best where the transform put them, and their number.

    Unrelated volumes agree in about 1 block of 27 (one for every shift).
    """
    weight = both.float()[None]
    covered = functional.avg_pool3d(weight, BLOCK)[0]
    usable = covered > VALID
    if not usable.any():
        return 0.0, 0.0
    means = functional.avg_pool3d(costs * weight, BLOCK)[:, usable]
    found = means.argmin(dim=0) == len(costs) // 2
    return float(found.float().mean()), float(usable.sum())
