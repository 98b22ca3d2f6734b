"""The range of intensities that every network is shown."""

from __future__ import annotations

import torch

LOW, HIGH = 0.01, 0.995
EVERY = 5


def normalised(image: torch.Tensor) -> torch.Tensor:
    """From 0 at the 1st to 1 at the 99.5th percentile of every fifth pixel, cut off there.

    image: (b, 1, [z,] y, x), float. The rule for the input of every keypoint network.
    """
    values = image.flatten(1)[:, ::EVERY].contiguous()
    last = values.shape[1] - 1
    shape = (-1, *(1,) * (image.ndim - 1))
    low, high = (
        values.kthvalue(round(share * last) + 1, dim=1).values.reshape(shape)
        for share in (LOW, HIGH)
    )
    return ((image - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
