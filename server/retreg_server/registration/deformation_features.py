"""What two volumes are compared by while one is deformed: MIND-SSC, and grey levels if alike."""

from __future__ import annotations

import torch

from retreg_server.registration.mind import local_mean, mind_ssc

RADIUS = 3  # voxels: the window of the local mean and deviation
FLAT = 0.02  # deviation of the intensity (0 to 1) below which a place counts as flat
GREY_SHARE = 3.0  # factor of the grey levels of equal contrasts beside the descriptors
UNLIKE, ALIKE = 0.5, 0.58  # local correlation of different and of equal contrasts


def grey_share(fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> float:
    """How much grey levels count beside the descriptors: 0 for volumes of different contrast.

    fixed, moving: roughly aligned volumes (1, 1, k, j, i) with coarse voxels, since details do not
    meet yet. weight: where they are compared, of the same shape.
    """
    greys = locally_normalised(fixed), locally_normalised(moving)
    powers = (weight * greys[0].square()).sum() * (weight * greys[1].square()).sum()
    likeness = float((weight * greys[0] * greys[1]).sum() / powers.sqrt().clamp_min(1e-9))
    return GREY_SHARE * min(max((likeness - UNLIKE) / (ALIKE - UNLIKE), 0.0), 1.0)


def described(volume: torch.Tensor, share: float) -> torch.Tensor:
    """Features (1, c, k, j, i) of a volume (1, 1, k, j, i).

    Locally normalised grey levels join the twelve channels of MIND-SSC where share is above 0:
    their squared difference is the local correlation that suits equal contrasts.
    """
    features = mind_ssc(volume)
    if share == 0:
        return features
    return torch.cat([features, share * locally_normalised(volume)], dim=1)


def locally_normalised(volume: torch.Tensor) -> torch.Tensor:
    """(volume - mean) / deviation in a window around each voxel; 0 where it is flat."""
    mean, square = (
        local_mean(values, 2 * RADIUS + 1) for values in (volume, volume.square())
    )
    variance = (square - mean.square()).clamp_min_(0)
    return (volume - mean) / (variance + FLAT**2).sqrt_()
