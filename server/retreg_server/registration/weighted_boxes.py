"""The part of a volume that counts, in pieces that fit the cache of a processor."""

from __future__ import annotations

import torch

Box = tuple[slice, slice, slice]

SLICES = 4


def boxes_of(weight: torch.Tensor, multiple: int = 1) -> list[Box]:
    """Slabs (k, j, i) of a few slices, trimmed, that together hold every voxel with a weight.

    Their corners lie on multiples of multiple; what is left over at the end of an axis is not
    looked at.
    """
    depth = multiple * max(1, SLICES // multiple)
    whole = [n // multiple * multiple for n in weight.shape]
    heavy = weight[: whole[0], : whole[1], : whole[2]] > 0
    boxes = []
    for first in range(0, whole[0], depth):
        slab = heavy[first : first + depth].any(dim=0)
        if slab.any():
            last = min(first + depth, whole[0])
            rows, columns = (_span(slab.any(dim=other), multiple) for other in (1, 0))
            boxes.append((slice(first, last), rows, columns))
    return boxes


def grown(box: Box, shape: tuple[int, ...]) -> tuple[Box, Box]:
    """The box with its neighbours in a volume of shape (k, j, i), and where in that it lies."""
    wide = [slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, shape, strict=True)]
    inner = [slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True)]
    return (wide[0], wide[1], wide[2]), (inner[0], inner[1], inner[2])


def _span(present: torch.Tensor, multiple: int) -> slice:
    """From the first to the last place where present is true, widened to multiples."""
    places = torch.nonzero(present)
    first, last = int(places[0]), int(places[-1])
    return slice(first // multiple * multiple, (last // multiple + 1) * multiple)
