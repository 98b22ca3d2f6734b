"""What a keypoint network is trained to do."""

from __future__ import annotations

import torch
from torch.nn import functional

from retreg_server.registration.networks.centre_of_mass import HeatMapPoints

NEAR = 0.03  # normalised units below which the distance counts squared
LEAST_VARIANCE = 1e-5
UNSEEN_VARIANCE = 0.1  # squared normalised units: what is expected of points out of view


def keypoint_loss(
    found: HeatMapPoints, truth: torch.Tensor, visible: torch.Tensor, certainty: float = 0.01
) -> torch.Tensor:
    """Distance to the true points (b, k, d) and, for a small part, the right uncertainty.

    visible: (b, k) weights, 0 for points that the image does not show: nothing is asked of their
    place, but their maps shall be wide. The second term is the
    negative log-likelihood of the truth under a Gaussian with the mean and the variance of the
    heat-map: it makes narrow maps mean certain points.
    """
    distance = functional.smooth_l1_loss(found.points, truth, beta=NEAR, reduction="none")
    variance = found.variance + LEAST_VARIANCE
    squared = (found.points - truth).square().mean(dim=2)
    surprise = 0.5 * (squared / variance + variance.log())
    each = distance.mean(dim=2) + certainty * surprise
    unknown = 0.5 * (UNSEEN_VARIANCE / variance + variance.log())
    seen = (each * visible).sum() / visible.sum().clamp_min(1)
    return seen + certainty * (unknown * (1 - visible)).sum() / visible.numel()


def agreement_loss(
    first: torch.Tensor, second: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Distance between the same keypoints (k, d) found twice, where both are visible (k,)."""
    distance = functional.smooth_l1_loss(first, second, beta=NEAR, reduction="none").mean(dim=1)
    return (distance * visible).sum() / visible.sum().clamp_min(1)


def weighted_affine(
    found: HeatMapPoints, fixed: int, moving: int, used: torch.Tensor | None = None
) -> torch.Tensor:
    """The affine (d + 1, d) that takes the keypoints of one image to those of another.

    A row vector (x, y[, z], 1) times it is the point in the moving image. Weights are one over
    the variances. used: (k,) bool, the points that take part.
    """
    used = torch.ones_like(found.energy[0], dtype=torch.bool) if used is None else used
    pair = [fixed, moving]
    weights = found.variance[pair].clamp_min(LEAST_VARIANCE).prod(dim=0).rsqrt()[used, None]
    source, target = found.points[pair][:, used].double()
    ones = torch.ones_like(source[:, :1])
    solved = torch.linalg.lstsq(weights * torch.cat([source, ones], dim=1), weights * target)
    return torch.as_tensor(solved.solution).float()


def weighted_affine_error(
    found: HeatMapPoints, truth: torch.Tensor, used: torch.Tensor | None = None
) -> torch.Tensor:
    """Median error at the true points of the affine that the keypoints of two images give.

    found: of two images; truth: (2, k, d); used: (k,) bool, the points that take part.
    """
    matrix = weighted_affine(found, 0, 1, used)
    fixed, moving = truth if used is None else truth[:, used]
    return (fixed @ matrix[:-1] + matrix[-1] - moving).norm(dim=1).median()
