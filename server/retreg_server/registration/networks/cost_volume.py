"""The correlation layer: how well each pixel of one feature map fits its surroundings in another.

Dosovitskiy et al. 2015 (FlowNet), in 2-D and 3-D.
"""

from __future__ import annotations

from itertools import product

import torch
from torch.nn import functional


def displacement_bases(dimensions: int, radius: int) -> torch.Tensor:
    """All displacements ((2 radius + 1)^d, d) of up to radius pixels per axis, order x, y(, z)."""
    steps = product(range(-radius, radius + 1), repeat=dimensions)
    return torch.tensor([step[::-1] for step in steps], dtype=torch.float32)


def correlations(fixed: torch.Tensor, moving: torch.Tensor, radius: int) -> torch.Tensor:
    """Cosines (b, m, *shape) between fixed (b, c, *shape) and moving at every displacement.

    The displacements are those of displacement_bases. Places outside of moving count as 0.
    """
    fixed, moving = functional.normalize(fixed, dim=1), functional.normalize(moving, dim=1)
    shape = fixed.shape[2:]
    padded = functional.pad(moving, [radius] * (2 * len(shape)))
    found = []
    for start in product(range(2 * radius + 1), repeat=len(shape)):
        shifted = padded
        for axis, (first, length) in enumerate(zip(start, shape, strict=True)):
            shifted = shifted.narrow(axis + 2, first, length)
        found.append((fixed * shifted).sum(dim=1))
    return torch.stack(found, dim=1)
