"""A first displacement by trying many at once, so that large ones are found.

Every node compares all displacements of a small cube, or square, by their descriptors. Then the
best displacement and a smooth field are pulled towards each other, ever more strongly. Source: the
coupled convex scheme of Steinbruecker, Pock and Cremers 2009 and Heinrich et al. 2014, as used by
ConvexAdam (Siebert, Hansen and Heinrich 2021).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from retreg_server.registration.numerics.volume_features import patch_mean

REACH = 3  # nodes in each direction along each axis
# Against costs that are 1 on average; squared distances are in nodes.
COUPLINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
BESIDE = 0.6  # nodes from what is allowed, of displacements that are tried for it
RELUCTANCE = 0.006  # of a displacement by one node, so that nothing moves without a reason


def convex_start(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weight: torch.Tensor,
    reach: int = REACH,
    stiffness: float = 1.0,
    allowed: torch.Tensor | None = None,
) -> torch.Tensor:
    """A shift (1, d, *shape) of up to reach nodes that brings the features together.

    fixed, moving: features (c, *shape) in 2-D or 3-D. weight: of that shape, how much each place
    has to say. stiffness: how many times more than usual smoothness counts. allowed: (d, d), the
    projection onto the directions in which anything may move.
    """
    steps = torch.arange(-reach, reach + 1, dtype=fixed.dtype, device=fixed.device)
    choices = torch.cartesian_prod(*[steps] * weight.ndim).flip(1)  # x, y(, z)
    if allowed is not None:
        projected = choices @ allowed.T
        choices = projected[(choices - projected).norm(dim=1) < BESIDE]
    own = choices.square().sum(dim=1, keepdim=True)
    costs = _costs(fixed, moving, weight, choices, reach).add_(own, alpha=stiffness * RELUCTANCE)
    shape = (1, weight.ndim, *weight.shape)
    smooth = _smooth(choices[costs.min(dim=0).indices].T.reshape(shape))
    for coupling in (stiffness * each for each in COUPLINGS):
        # |choice - smooth|^2 but for the part that is the same for every choice.
        pulled = torch.addmm(costs, choices, smooth.flatten(2)[0], alpha=-2 * coupling)
        best = pulled.add_(own, alpha=coupling).min(dim=0).indices
        smooth = _smooth(choices[best].T.reshape(shape))
    return smooth


def _costs(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    weight: torch.Tensor,
    choices: torch.Tensor,
    reach: int,
) -> torch.Tensor:
    """(choices, nodes) weighted squared differences of the features, smoothed over the nodes.

    Their mean is 1 where the weight is 1, so that more channels do not outweigh smoothness.
    """
    padded = functional.pad(moving[None], [reach] * 2 * weight.ndim, mode="replicate")[0]
    costs = fixed.new_empty(len(choices), weight.numel())
    for number, choice in enumerate(choices):
        starts = [round(float(step)) + reach for step in choice.flip(0)]
        window = [slice(a, a + n) for a, n in zip(starts, weight.shape, strict=True)]
        cost = (fixed - padded[:, *window]).square_().sum(dim=0).mul_(weight)
        costs[number] = _smooth(cost[None, None]).ravel()
    typical = costs.mean() / weight.mean().clamp_min(1e-6)
    return costs.div_(typical.clamp_min(1e-9))


def _smooth(values: torch.Tensor) -> torch.Tensor:
    """Twice the mean over 3 nodes along every axis, continued at the border; (1, c, *shape)."""
    around = [1] * 2 * (values.ndim - 2)
    for _ in range(2):
        values = patch_mean(functional.pad(values, around, mode="replicate"))
    return values
