"""What two volumes are compared by while one is deformed: MIND-SSC, and grey levels if alike."""

from __future__ import annotations

import torch
from torch.nn import functional

from retreg_server.registration.mind import mind_ssc

RADIUS = 3  # voxels: the window of the local mean and deviation
FLAT = 0.02  # deviation of the intensity (0 to 1) below which a place counts as flat
GREY_SHARE = 3.0  # weight of the grey levels beside the descriptors
UNLIKE, ALIKE = 0.5, 0.7  # correlation of the local grey levels of different and equal contrasts


def described(
    fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (1, c, k, j, i) of two roughly aligned volumes (1, 1, k, j, i), the same c.

    Locally normalised grey levels join the twelve channels of MIND-SSC where both volumes have
    the same contrast: their squared difference is the local correlation that suits such pairs.
    weight: where the volumes are compared, of the same shape.
    """
    features = mind_ssc(fixed), mind_ssc(moving)
    greys = locally_normalised(fixed), locally_normalised(moving)
    likeness = float((weight * greys[0] * greys[1]).sum() / _power(weight, *greys))
    share = GREY_SHARE * min(max((likeness - UNLIKE) / (ALIKE - UNLIKE), 0.0), 1.0)
    if share == 0:
        return features
    first, second = (torch.cat(both, dim=1) for both in zip(features, greys, strict=True))
    first[:, -1:] *= share
    second[:, -1:] *= share
    return first, second


def locally_normalised(volume: torch.Tensor) -> torch.Tensor:
    """(volume - mean) / deviation in a window around each voxel; 0 where it is flat."""
    window = 2 * RADIUS + 1
    mean, square = (
        functional.avg_pool3d(values, window, 1, RADIUS, count_include_pad=False)
        for values in (volume, volume.square())
    )
    variance = (square - mean.square()).clamp_min_(0)
    return (volume - mean) / (variance + FLAT**2).sqrt_()


def _power(weight: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> float:
    powers = (weight * first.square()).sum() * (weight * second.square()).sum()
    return max(float(powers.sqrt()), 1e-9)
