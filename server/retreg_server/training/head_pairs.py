"""Two painted heads, of one person or of two, bent against each other after a global alignment."""

from __future__ import annotations

import torch
from torch.nn import functional

from retreg_server.training.brain_contrast import painted
from retreg_server.training.intensities import chance
from retreg_server.training.known_pairs import KnownPairs, known_fields
from retreg_server.training.label_maps import HALF_SIDE_MM, LABELS, LEFT_RIGHT, LabelMap
from retreg_server.training.warps import Warp, WarpRanges, random_warp

VOXELS = 64
SPACING_MM = 3.0
HALF_CUBE_MM = VOXELS * SPACING_MM / 2
VIEW = WarpRanges(35.0, scale=0.12, shear=0.05, shift=0.08, bend=0.0)
RESIDUAL = WarpRanges(4.0, scale=0.05, shear=0.03, shift=0.03, bend=0.08)
SAME_CONTRAST = 0.3
TISSUES = (16, 14, 15, *(label for pair in LEFT_RIGHT[:10] for label in pair))


def head_pair(fixed: LabelMap, moving: LabelMap, generator: torch.Generator) -> KnownPairs:
    """One pair. The field is known where both are the same head; tissues are known always."""
    view = random_warp(3, VIEW, HALF_CUBE_MM / HALF_SIDE_MM, generator)
    residual = random_warp(3, RESIDUAL, 1.0, generator)
    anatomy_points = residual.anatomy_at_pixels((VOXELS,) * 3)
    labels = (
        fixed.look_up(
            view.anatomy_of(anatomy_points.reshape(-1, 3)).reshape(anatomy_points.shape[1:])
        ),
        moving.look_up(view.anatomy_at_pixels((VOXELS,) * 3)[0]),
    )
    images = _painted_both(labels, generator)
    tissues = torch.cat([_shares(each) for each in labels])
    fields, seen = _known(residual, labels)
    if fixed is not moving:
        seen = torch.zeros_like(seen)
    return KnownPairs(images, fields, seen, tissues)


def _known(
    residual: Warp, labels: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fields and seen; the air around the head counts for nothing."""
    heads = [(each > 0).float()[None, None] for each in labels]
    return known_fields(residual, (heads[0], heads[1]))


def _painted_both(
    labels: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator
) -> torch.Tensor:
    """Two images (2, 1, z, y, x); sometimes painted alike."""
    if chance(SAME_CONTRAST, generator):
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        brushes = [torch.Generator(generator.device).manual_seed(seed) for _ in labels]
    else:
        brushes = [generator, generator]
    return torch.cat([painted(each, brush) for each, brush in zip(labels, brushes, strict=True)])


def _shares(labels: torch.Tensor) -> torch.Tensor:
    """Shares (1, c, *half) of the TISSUES among the voxels of every block of 2^3."""
    names = torch.zeros(LABELS, dtype=torch.int64, device=labels.device)
    names[list(TISSUES)] = torch.arange(1, len(TISSUES) + 1, device=labels.device)
    tissues = torch.arange(1, len(TISSUES) + 1, device=labels.device).reshape(-1, 1, 1, 1)
    return functional.avg_pool3d((names[labels] == tissues).float(), 2)[None]
