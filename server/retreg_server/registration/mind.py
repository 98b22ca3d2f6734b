"""MIND-SSC: what a voxel looks like to its neighbours, whatever the contrast.

Source: Heinrich et al., MICCAI 2013, "Towards realtime multimodal fusion for image-guided
interventions using self-similarities".
"""

from __future__ import annotations

import torch
from torch.nn import functional

AXIS_PAIRS = ((0, 1), (0, 2), (1, 2))
CHANNELS = 12


def mind_ssc(volume: torch.Tensor, distance: int = 1) -> torch.Tensor:
    """Descriptors (b, 12, k, j, i) of volumes (b, 1, k, j, i).

    Each channel compares two of the six neighbours at distance voxels that are not opposite, by
    the mean squared difference of the 3^3 patches around them: exp(-D / V), where V is the mean
    over the channels and the smallest D is subtracted first.
    """
    padded = functional.pad(volume, [distance + 1] * 6, mode="replicate")
    channels = []
    for a, b in AXIS_PAIRS:
        for sign in (1, -1):
            # Both pairs that share one difference vector read the same map at two places.
            step = [0, 0, 0]
            step[a], step[b] = -distance, sign * distance
            other = torch.roll(padded, [-s for s in step], (2, 3, 4))
            differences = patch_mean((padded - other).square_())
            first, second = [0, 0, 0], [0, 0, 0]
            first[a], second[b] = distance, -sign * distance
            channels += [_window(differences, distance, at) for at in (first, second)]
    distances = torch.cat(channels, dim=1)
    distances -= distances.amin(dim=1, keepdim=True)
    variance = distances.mean(dim=1, keepdim=True)
    typical = variance.mean(dim=(2, 3, 4), keepdim=True).clamp_min(1e-12)
    variance = torch.minimum(torch.maximum(variance, 1e-3 * typical), 1e3 * typical)
    return distances.div_(variance).neg_().exp_()


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
    of what lies in the volume."""
    for axis in range(3):
        size, margin = [1, 1, 1], [0, 0, 0]
        size[axis], margin[axis] = window, window // 2
        values = functional.avg_pool3d(values, size, 1, margin, count_include_pad=False)
    return values


def _window(padded: torch.Tensor, margin: int, offset: list[int]) -> torch.Tensor:
    for axis, shift in enumerate(offset):
        size = padded.shape[axis + 2] - 2 * margin
        padded = padded.narrow(axis + 2, margin + shift, size)
    return padded
