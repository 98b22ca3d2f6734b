"""Transforms from keypoints in closed form that gradients can pass through, and what they align.

The spline is the one of retreg.splines (kernel -r, smoothing in units of the length of the fixed
points); this is its batched and differentiable twin for training, in normalised coordinates.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from retreg_server.training.intensities import between

LATTICE = 12  # points along each axis at which the transform is evaluated exactly
SMOOTHING_RANGE = (1e-3, 10.0)


def random_smoothing(generator: torch.Generator) -> float:
    """A smoothing drawn evenly on a logarithmic scale."""
    low, high = (math.log(limit) for limit in SMOOTHING_RANGE)
    return math.exp(between(low, high, generator))


def spline_at(
    points: torch.Tensor,
    fixed: torch.Tensor,
    moving: torch.Tensor,
    smoothing: float,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Where the smoothing spline from fixed to moving (b, k, d) takes points (b, n, d).

    smoothing: from 0; inf gives the affine. weights: (b, k) of any positive scale.
    """
    b, k, d = fixed.shape
    weights = torch.ones(b, k, device=fixed.device) if weights is None else weights
    weights = weights / weights.mean(dim=1, keepdim=True)
    centre = (weights[..., None] * fixed).mean(dim=1, keepdim=True)
    length = (fixed - fixed.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1).sqrt()
    scaled, places = ((x - centre) / length[:, None, None] for x in (fixed, points))
    basis, wanted = (torch.cat([torch.ones_like(x[..., :1]), x], dim=2) for x in (scaled, places))
    if math.isinf(smoothing):
        root = weights.sqrt()[..., None]
        return wanted @ torch.linalg.lstsq(root * basis, root * moving).solution
    system = -_distances(scaled, scaled) + smoothing * torch.diag_embed(1 / weights)
    zeros = torch.zeros(b, d + 1, d + 1, device=fixed.device)
    full = torch.cat(
        [torch.cat([system, basis], dim=2), torch.cat([basis.transpose(1, 2), zeros], dim=2)], dim=1
    )
    target = torch.cat([moving, torch.zeros(b, d + 1, d, device=fixed.device)], dim=1)
    solution = torch.linalg.solve(full, target)
    return wanted @ solution[:, k:] - _distances(places, scaled) @ solution[:, :k]


def spline_grid(
    shape: tuple[int, ...], fixed: torch.Tensor, moving: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """The spline as a sampling grid (b, *shape, d), exact on a coarse lattice only."""
    b, _, d = fixed.shape
    coarse = (LATTICE,) * d
    eye = torch.eye(d, d + 1, device=fixed.device)[None]
    nodes = functional.affine_grid(eye, [1, 1, *coarse], align_corners=False).reshape(1, -1, d)
    offsets = spline_at(nodes.expand(b, -1, d), fixed, moving, smoothing) - nodes
    offsets = offsets.reshape(b, *coarse, d).movedim(-1, 1)
    mode = "bilinear" if d == 2 else "trilinear"
    fine = functional.interpolate(offsets, size=shape, mode=mode, align_corners=False)
    identity = functional.affine_grid(eye, [1, 1, *shape], align_corners=False)
    return identity + fine.movedim(1, -1)


def similarity_loss(fixed: torch.Tensor, moving: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the fixed image and the warped moving one."""
    warped = functional.grid_sample(moving, grid, align_corners=False)
    return functional.mse_loss(warped, fixed)


def overlap_loss(fixed: torch.Tensor, moving: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """One minus the soft Dice overlap of label shares (b, labels, …), with squared denominators
    (Milletari et al. 2016), averaged over the labels."""
    warped = functional.grid_sample(moving, grid, align_corners=False)
    both = (fixed * warped).flatten(2).sum(dim=2)
    sizes = fixed.square().flatten(2).sum(dim=2) + warped.square().flatten(2).sum(dim=2)
    return 1 - ((2 * both + 1) / (sizes + 1)).mean()


def _distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(b, m, n), with a gradient of 0 instead of infinity where points coincide."""
    squared = (first[:, :, None] - second[:, None]).square().sum(dim=3)
    apart = squared > 0
    return torch.where(apart, squared, 1.0).sqrt() * apart
