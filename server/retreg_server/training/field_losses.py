"""What a network that answers with a displacement field is trained to do.

Fields are in pixels of the images and lie on fewer pixels than they do.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from retreg_server.registration.numerics.fields import interpolated, warped
from retreg_server.registration.numerics.volume_features import mind_ssc
from retreg_server.training.known_pairs import KnownPairs, partners

NEAR = 0.1  # pixels below which the endpoint error counts squared
CONSISTENT_SHARE, CONSISTENT_PIXELS = 0.01, 1.0  # Meister et al. 2018 (UnFlow), for squares


def endpoint_error(field: torch.Tensor, truth: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Mean distance in pixels between field and truth (b, d, *shape) where seen (b, 1, *shape)."""
    shape = tuple(field.shape[2:])
    if shape != tuple(truth.shape[2:]):
        truth, seen = interpolated(truth, shape), interpolated(seen, shape).floor()
    distance = ((field - truth).square().sum(dim=1, keepdim=True) + NEAR**2).sqrt() - NEAR
    return (distance * seen).sum() / seen.sum().clamp_min(1)


def consistent(field: torch.Tensor) -> torch.Tensor:
    """(2n, 1, *shape) float: 1 where the way there and back returns, so nothing is hidden.

    field: of KnownPairs.images to their partners.
    """
    stride = 2  # fields of the finest level lie on half the pixels
    backward = warped(partners(field), field / stride)
    missed = (field + backward).square().sum(dim=1, keepdim=True)
    lengths = (field.square() + backward.square()).sum(dim=1, keepdim=True)
    return (missed < CONSISTENT_SHARE * lengths + CONSISTENT_PIXELS).float()


def unlikeness(images: torch.Tensor, field: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How little the partner, warped by field, looks like each image where mask is 1.

    Volumes are compared by MIND-SSC descriptors (mean squared difference), pictures, which are
    vessel maps, by one minus their correlation.
    """
    half = _halved(images)
    if images.ndim == 5:
        descriptors = mind_ssc(half)
        found = warped(partners(descriptors), field / 2)
        differences = (descriptors - found).square().mean(dim=1, keepdim=True)
        return (differences * mask).sum() / mask.sum().clamp_min(1)
    found = warped(partners(half), field / 2)
    return (1 - _correlation(half, found, mask)).mean()


def misfit(tissues: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    """One minus the soft Dice of the partner's tissues (2n, c, *shape), warped by field."""
    found = warped(partners(tissues), field / 2)
    axes = tuple(range(2, tissues.ndim))
    both = (tissues * found).sum(dim=axes)
    total = (tissues.square() + found.square()).sum(dim=axes)
    used = tissues.sum(dim=axes) > 0
    dice = (2 * both + 1e-3) / (total + 1e-3)
    return 1 - (dice * used).sum() / used.sum().clamp_min(1)


def bending(field: torch.Tensor) -> torch.Tensor:
    """Mean squared second differences along the axes."""
    return torch.stack(
        [field.diff(n=2, dim=axis).square().mean() for axis in range(2, field.ndim)]
    ).sum()


def field_loss(fields: tuple[torch.Tensor, ...], pairs: KnownPairs) -> torch.Tensor:
    """All terms together; the finest field counts fully, coarser ones half."""
    finest = fields[-1]
    loss = endpoint_error(finest, pairs.fields, pairs.seen)
    for coarse in fields[:-1]:
        loss = loss + 0.5 * endpoint_error(coarse, pairs.fields, pairs.seen)
    with torch.no_grad():
        mask = consistent(finest)
    loss = loss + 0.5 * unlikeness(pairs.images, finest, mask) + 0.02 * bending(finest)
    if pairs.tissues is not None:
        loss = loss + misfit(pairs.tissues, finest)
    return loss


def _halved(images: torch.Tensor) -> torch.Tensor:
    pool = functional.avg_pool2d if images.ndim == 4 else functional.avg_pool3d
    return pool(images, 2)


def _correlation(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(b,) of the values where mask is 1."""
    axes = tuple(range(1, a.ndim))
    count = mask.sum(dim=axes, keepdim=True).clamp_min(1)
    a = (a - (a * mask).sum(dim=axes, keepdim=True) / count) * mask
    b = (b - (b * mask).sum(dim=axes, keepdim=True) / count) * mask
    lengths = a.square().sum(dim=axes) * b.square().sum(dim=axes)
    return (a * b).sum(dim=axes) / (lengths + 1e-6).sqrt()
