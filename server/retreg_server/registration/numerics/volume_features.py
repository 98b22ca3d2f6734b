"""What a voxel looks like to its neighbours: MIND-SSC, and grey levels where contrasts are equal.

Source: Heinrich et al., MICCAI 2013, "Towards realtime multimodal fusion for image-guided
interventions using self-similarities".
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

AXIS_PAIRS = ((0, 1), (0, 2), (1, 2))
CHANNELS = 12
RADIUS = 3  # voxels: the window of the local mean and deviation
SMALL = 100_000  # voxels of a volume of which all maps together stay in the cache of a processor
FLAT = 0.02  # deviation of the intensity (0 to 1) below which a place counts as flat
GREY_SHARE = 3.0  # factor of the grey levels of equal contrasts beside the descriptors
UNLIKE, ALIKE = 0.5, 0.58  # local correlation of different and of equal contrasts


def mind_ssc(volume: torch.Tensor, distance: int = 1) -> torch.Tensor:
    """Descriptors (b, 12, k, j, i) of volumes (b, 1, k, j, i).

    Each channel compares two of the six neighbours at distance voxels that are not opposite, by
    the mean squared difference of the 3^3 patches around them: exp(-D / V), where V is the mean
    over the channels and the smallest D is subtracted first.
    """
    distances = torch.cat(
        [
            _window(differences[:, number : number + 1], distance, at)
            for differences, places in _patch_differences(volume, distance, 1)
            for number, pair in enumerate(places)
            for at in pair
        ],
        dim=1,
    )
    distances -= distances.amin(dim=1, keepdim=True)
    variance = distances.mean(dim=1, keepdim=True)
    variance = _bounded(variance, variance.mean(dim=(2, 3, 4), keepdim=True))
    return distances.div_(variance).neg_().exp_()


def mind_ssc_at(volume: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
    """Descriptors (12, ...) of a volume (1, 1, k, j, i) at some of its voxels only.

    voxels: (3, ...) their indices (k, j, i). Beside mind_ssc this takes the memory of a few volumes
    instead of thirty. What is flat is judged by these voxels, not by all.
    """
    _, j, i = (n + 2 for n in volume.shape[2:])  # the maps are wider by a voxel on each side
    middle = ((voxels[0] + 1) * j + voxels[1] + 1) * i + voxels[2] + 1
    at_once = 6 if volume.numel() < SMALL else 1
    found = []
    for differences, places in _patch_differences(volume, 1, at_once):
        size = differences[0, 0].numel()
        offsets = [
            number * size + (dk * j + dj) * i + di
            for number, pair in enumerate(places)
            for dk, dj, di in pair
        ]
        there = torch.tensor(offsets).reshape(-1, *[1] * middle.ndim) + middle
        found.append(differences.ravel().index_select(0, there.ravel()).reshape(there.shape))
    distances = torch.cat(found)
    distances -= distances.amin(dim=0)
    variance = distances.mean(dim=0)
    return distances.div_(_bounded(variance, variance.mean())).neg_().exp_()


def _patch_differences(
    volume: torch.Tensor, distance: int, at_once: int
) -> Iterator[tuple[torch.Tensor, list[tuple[list[int], list[int]]]]]:
    """Six maps of patches against patches, at_once in each (b, n, k + 2 distance, j + 2 distance,
    i + 2 distance), and the two places (k, j, i) from a voxel at which each map is read.

    Both pairs of neighbours that share one difference vector read the same map.
    """
    wide = functional.pad(volume, [2 * distance + 1] * 6, mode="replicate")
    here = _window(wide, distance, [0, 0, 0])
    corners = [(a, b, sign) for a, b in AXIS_PAIRS for sign in (1, -1)]
    for first in range(0, len(corners), at_once):
        others, places = [], []
        for a, b, sign in corners[first : first + at_once]:
            step, there, back = [0, 0, 0], [0, 0, 0], [0, 0, 0]
            step[a], step[b] = -distance, sign * distance
            there[a], back[b] = distance, -sign * distance
            others.append(_window(wide, distance, step))
            places.append((there, back))
        yield patch_mean((here - torch.cat(others, dim=1)).square_()), places


def _bounded(variance: torch.Tensor, typical: torch.Tensor) -> torch.Tensor:
    typical = typical.clamp_min(1e-12)
    return torch.minimum(torch.maximum(variance, 1e-3 * typical), 1e3 * typical)


def patch_mean(squares: torch.Tensor) -> torch.Tensor:
    """Mean over 3 voxels along every spatial axis of (b, c, *shape); each size shrinks by 2."""
    axes = range(2, squares.ndim)
    for axis in axes:
        inner = squares.shape[axis] - 2
        total = squares.narrow(axis, 0, inner) + squares.narrow(axis, 1, inner)
        squares = total.add_(squares.narrow(axis, 2, inner))
    return squares.div_(3 ** len(axes))


def local_mean(values: torch.Tensor, window: int) -> torch.Tensor:
    """The mean of values (b, c, k, j, i) over a cube of an odd number of voxels around each voxel,
    of what lies in the volume; the cube is thinner along an axis that has fewer voxels."""
    for axis in range(3):
        size, margin = [1, 1, 1], [0, 0, 0]
        margin[axis] = min(window, values.shape[axis + 2] - 1) // 2
        size[axis] = 2 * margin[axis] + 1
        values = functional.avg_pool3d(values, size, 1, margin, count_include_pad=False)
    return values


def _window(padded: torch.Tensor, margin: int, offset: list[int]) -> torch.Tensor:
    for axis, shift in enumerate(offset):
        size = padded.shape[axis + 2] - 2 * margin
        padded = padded.narrow(axis + 2, margin + shift, size)
    return padded


def grey_share(fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> float:
    """How much grey levels count beside the descriptors: 0 for volumes of different contrast.

    fixed, moving: roughly aligned volumes (1, 1, k, j, i) with coarse voxels, since details do not
    meet yet. weight: where they are compared, of the same shape.
    """
    greys = locally_normalised(fixed), locally_normalised(moving)
    powers = (weight * greys[0].square()).sum() * (weight * greys[1].square()).sum()
    similarity = float((weight * greys[0] * greys[1]).sum() / powers.sqrt().clamp_min(1e-9))
    return GREY_SHARE * min(max((similarity - UNLIKE) / (ALIKE - UNLIKE), 0.0), 1.0)


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
