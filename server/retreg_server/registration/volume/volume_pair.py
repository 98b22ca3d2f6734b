"""Two volumes, prepared for registration at several resolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from retreg.errors import EmptyImageError
from retreg.image import Image
from retreg_server.registration.numerics.spaces import (
    TensorVolume,
    bounded_spacing,
    canonical,
    isotropic,
    sample,
)
from retreg_server.registration.preprocessing.foreground import Foreground, find_foreground
from retreg_server.registration.volume.rotation_search import BINS, MutualInformationSamples

FINE_VOXELS = 88  # along the longest side of the smaller object
UNEQUAL = 1.35  # volumes further apart than this are a head and a brain, or a part and a whole
TRIM_MM = 5.0  # how deep below its surface the smaller of two unequal objects is believed
MARGIN_MM = 8.0  # how far around the object its surroundings are used otherwise
PROBE_POINTS = 4000
BORDERS = (5, 3, 1)  # voxels around the edge of an image that are not believed
LEFT = 0.25  # of the object, at least
FEWEST_POINTS = 32  # voxels with a weight at the coarsest level
THROUGH = 12  # voxels through a slab
THIN_SLAB = 0.33  # thickness of a slab, as a share of its longest side, of few coarse voxels


@dataclass(frozen=True, eq=False)
class VolumePairLevel:
    """Domain and target volumes at one resolution.

    Channels of both: intensity, and the weight that a voxel may have (0 to 1).
    """

    domain: TensorVolume
    target: TensorVolume

    @property
    def swapped(self) -> VolumePairLevel:
        """The other direction."""
        return VolumePairLevel(self.target, self.domain)


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """One image: its voxels on canonical axes, and the object in it."""

    volume: TensorVolume
    foreground: Foreground

    @classmethod
    def of(cls, image: Image, role: str) -> PreparedVolume:
        """Raises EmptyImageError when the image shows no object."""
        volume = canonical(image)
        return cls(volume, find_foreground(volume, role))

    def cut(self, spacing_mm: float) -> TensorVolume:
        """Cubic voxels around the object: channels intensity (0 to 1), depth in mm, validity."""
        half_mm = np.linalg.norm(self.volume.world_from_norm[:3, :3], axis=0)
        margin = (MARGIN_MM + 4 * spacing_mm) / half_mm
        box = self.foreground.box + np.stack([-margin, margin])
        raw = isotropic(self.volume, spacing_mm, box, 4)
        depth = sample(self.foreground.depth_mm, raw, np.eye(4))
        valid = (raw.tensor[:, 1:] > 0.99).float()
        strength = (raw.tensor[:, :1] - self.foreground.background).abs_().mul_(valid)
        intensity = strength.div_(self.foreground.bright).clamp_(0, 1.2)
        return TensorVolume(torch.cat([intensity, depth, valid], dim=1), raw.world_from_norm)


def common_spacing(
    first: PreparedVolume, second: PreparedVolume, voxels: int, least_mm: float = 0.0
) -> float:
    """Size in mm of the voxels of which that many lie along the smaller object, if neither cut
    becomes too large with them; not below least_mm."""
    objects = first.foreground, second.foreground
    slabs = [each.thickness_mm / THROUGH for each in objects if each.is_slab]
    wanted = max(min([each.longest_mm / voxels for each in objects] + slabs), least_mm)
    margin = 2 * MARGIN_MM + 8 * wanted
    extents = np.stack([each.extent_mm + margin for each in objects])
    return bounded_spacing(extents, wanted)


def weighted(cut: TensorVolume, factor: int, inset_mm: float) -> TensorVolume:
    """A cut, pooled by factor, with the channels intensity and weight.

    The weight rises from 0 to 1 where the depth below the surface passes inset_mm, and is 0 near
    the edge of the image; less near, where hardly anything would be left of a slab.
    """
    pooled = cut.pooled(factor)
    intensity, depth, valid = (pooled.tensor[:, n : n + 1] for n in range(3))
    deep = ((depth - inset_mm) / 4 + 0.5).clamp_(0, 1)
    for border in BORDERS:
        weight = deep * (1 - _near_missing(valid, border))
        if float(weight.sum()) > LEFT * float((deep * valid).sum()):
            break
    return TensorVolume(torch.cat([intensity, weight], dim=1), cut.world_from_norm)


def _refuse_empty(level: TensorVolume, shown: Foreground) -> None:
    """Raise EmptyImageError when hardly a voxel of the level (intensity, weight) counts."""
    if int((level.tensor[:, 1] > 0.5).sum()) < FEWEST_POINTS:
        raise EmptyImageError(
            "One image shows only a thin piece, about "
            f"{shown.thickness_mm / shown.longest_mm:.0%} as thick as it is long, too little to be "
            "found in the other one; give a volume that shows more."
        )


def _near_missing(valid: torch.Tensor, border: int) -> torch.Tensor:
    """1 in cubes of border voxels around those without data (1, 1, k, j, i); 0 elsewhere."""
    missing = (valid < 0.99).float()
    for axis in range(3):
        window = [1, 1, 1]
        window[axis] = border
        missing = functional.max_pool3d(missing, window, 1, [n // 2 for n in window])
    return missing


@dataclass(frozen=True, eq=False)
class VolumePair:
    """Domain and target: points of the domain are looked up in the target.

    levels: pairs by coarseness, 1 has the finest voxels; 2 and 4 have pooled ones.
    """

    domain: Foreground
    target: Foreground
    levels: Mapping[int, VolumePairLevel]

    @classmethod
    def of(cls, domain: PreparedVolume, target: PreparedVolume) -> VolumePair:
        """Cut both volumes to the same voxel size, with weights that suit the pair."""
        spacing = common_spacing(domain, target, FINE_VOXELS)
        ratio = target.foreground.volume_mm3 / domain.foreground.volume_mm3
        cuts = domain.cut(spacing), target.cut(spacing)
        levels = {}
        for factor, margin in ((1, 0.0), (2, MARGIN_MM), (4, MARGIN_MM)):
            insets = (
                TRIM_MM if ratio > UNEQUAL else -margin,
                TRIM_MM if 1 / ratio > UNEQUAL else -margin,
            )
            levels[factor] = VolumePairLevel(
                weighted(cuts[0], factor, insets[0]),
                weighted(cuts[1], factor, insets[1]),
            )
        _refuse_empty(levels[4].domain, domain.foreground)
        _refuse_empty(levels[4].target, target.foreground)
        return cls(domain.foreground, target.foreground, levels)

    @cached_property
    def swapped(self) -> VolumePair:
        """The other direction."""
        levels = {n: pair.swapped for n, pair in self.levels.items()}
        return VolumePair(self.target, self.domain, levels)

    @property
    def volume_ratio(self) -> float:
        """Volume of the target's object over that of the domain's."""
        return self.target.volume_mm3 / self.domain.volume_mm3

    @property
    def unequal(self) -> bool:
        """Whether one shows much more than the other, such as a head and a bare brain."""
        return max(self.volume_ratio, 1 / self.volume_ratio) > UNEQUAL

    @property
    def slab_share(self) -> float:
        """Thickness of the thinner slab as a share of its longest side; 1 without a slab."""
        slabs = [each for each in (self.domain, self.target) if each.is_slab]
        return min((each.thickness_mm / each.longest_mm for each in slabs), default=1.0)

    @property
    def is_thin(self) -> bool:
        """Whether coarse voxels see little of a slab but its faces."""
        return self.slab_share < THIN_SLAB

    @property
    def settling_levels(self) -> tuple[int, int]:
        """The levels at which candidates are improved and compared."""
        return (2, 1) if self.is_thin else (4, 2)

    @cached_property
    def samples(self) -> MutualInformationSamples:
        """Points of the domain with their grey levels, and the target, at the coarsest level."""
        pair = self.levels[4]
        index = np.flatnonzero(pair.domain.tensor[0, 1].numpy() > 0.5)
        if len(index) > PROBE_POINTS:
            index = np.random.default_rng(0).choice(index, PROBE_POINTS, replace=False)
        grey = pair.domain.tensor[0, 0].ravel()[torch.from_numpy(index)]
        bins = (grey * (BINS - 1) + 0.5).long().clamp(0, BINS - 1)
        return MutualInformationSamples(
            pair.domain.voxel_centres()[index],
            bins,
            TensorVolume(pair.target.tensor[:, :1], pair.target.world_from_norm),
        )
