"""Painted heads with known keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from retreg_server.training.brain_contrast import painted
from retreg_server.training.correspondence import Anatomy
from retreg_server.training.label_maps import HALF_SIDE_MM
from retreg_server.training.warps import Warp, WarpRanges, random_warp

VOXELS = 64
SPACING_MM = 3.5
HALF_CUBE_MM = VOXELS * SPACING_MM / 2


@dataclass(frozen=True, eq=False)
class Sample:
    """image: (1, 1, z, y, x). labels: (z, y, x). points: (k, 3), the keypoints in the image.

    warp: from the image to the anatomy.
    """

    image: torch.Tensor
    labels: torch.Tensor
    points: torch.Tensor
    warp: Warp


def brain_sample(
    anatomy: Anatomy,
    ranges: WarpRanges,
    generator: torch.Generator,
    contrast: int | None = None,
) -> Sample:
    """A head, warped and painted at random; samples with one contrast seed are painted alike."""
    warp = random_warp(3, ranges, HALF_CUBE_MM / HALF_SIDE_MM, generator)
    labels = anatomy.head.look_up(warp.anatomy_at_pixels((VOXELS,) * 3)[0])
    brush = generator
    if contrast is not None:
        brush = torch.Generator(generator.device).manual_seed(contrast)
    return Sample(painted(labels, brush), labels, warp.image_of(anatomy.points), warp)
