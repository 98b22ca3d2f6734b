"""KeyMorph's two objectives for pairs of heads (Wang et al. 2023).

They are for tuning a network that already finds keypoints: from random weights the points would
have nothing to hold on to.
"""

from __future__ import annotations

import torch

from retreg_server.registration.networks.keypoint_net import KeypointNet
from retreg_server.training.alignment import (
    overlap_loss,
    random_smoothing,
    similarity_loss,
    spline_grid,
)
from retreg_server.training.brain_contrast import TISSUES
from retreg_server.training.brain_samples import Sample, brain_sample
from retreg_server.training.correspondence import Anatomy
from retreg_server.training.intensities import chance
from retreg_server.training.losses import agreement_loss
from retreg_server.training.warps import WarpRanges


def unsupervised_loss(
    net: KeypointNet, heads: list[Anatomy], ranges: WarpRanges, generator: torch.Generator
) -> torch.Tensor:
    """Either the squared difference of two people in one contrast after the spline from their
    keypoints, or the distance of one person's keypoints in two contrasts."""
    if chance(0.5, generator):
        head = _drawn(heads, generator)[0]
        first, second = (brain_sample(head, ranges, generator) for _ in range(2))
        found = net(torch.cat([first.image, second.image]))
        places = [each.warp.anatomy_of(points)
                  for each, points in zip((first, second), found.points, strict=True)]
        return agreement_loss(places[0], places[1], torch.ones_like(found.energy[0]))
    contrast = int(torch.randint(0, 2**31, (), generator=generator, device=generator.device))
    fixed, moving = (brain_sample(head, ranges, generator, contrast)
                     for head in _drawn(heads, generator))
    return similarity_loss(fixed.image, moving.image, _grid(net, fixed, moving, generator))


def supervised_loss(
    net: KeypointNet, heads: list[Anatomy], ranges: WarpRanges, generator: torch.Generator
) -> torch.Tensor:
    """The missing overlap of the tissues of two people after the spline from their keypoints."""
    fixed, moving = (brain_sample(head, ranges, generator) for head in _drawn(heads, generator))
    grid = _grid(net, fixed, moving, generator)
    return overlap_loss(tissue_shares(fixed.labels), tissue_shares(moving.labels), grid)


def tissue_shares(labels: torch.Tensor) -> torch.Tensor:
    """One channel (1, tissues, z, y, x) of zeros and ones for each group of labels."""
    groups = [torch.isin(labels, torch.tensor(group, device=labels.device)) for group in TISSUES]
    return torch.stack(groups)[None].float()


def _grid(
    net: KeypointNet, fixed: Sample, moving: Sample, generator: torch.Generator
) -> torch.Tensor:
    points = net(torch.cat([fixed.image, moving.image])).points
    shape = tuple(fixed.image.shape[2:])
    return spline_grid(shape, points[:1], points[1:], random_smoothing(generator))


def _drawn(heads: list[Anatomy], generator: torch.Generator) -> tuple[Anatomy, Anatomy]:
    index = torch.randint(0, len(heads), (2,), generator=generator, device=generator.device)
    return heads[int(index[0])], heads[int(index[1])]
