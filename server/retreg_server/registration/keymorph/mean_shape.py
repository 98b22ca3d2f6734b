"""The mean of corresponding points of many images, as shapes are averaged.

Wang et al. 2024 (BrainMorph), section on groupwise registration. Two changes: the points are first
turned to those of the first image, since the mean at arbitrary rotations collapses, and the mean
keeps the size and place that it had then, since fits to a mean shrink it. In a robust mean, images
whose points stay far from those of the others count less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retreg.fitting import Family, fit, fit_rigid, fit_similarity
from retreg_server.registration.numerics.robust_weights import median_trust

ROUNDS = 10
SETTLED = 1e-3  # of the size of the point set: the mean moves no further


@dataclass(frozen=True, eq=False)
class MeanShape:
    """points: (k, 3) LPS mm. shares: (n,) of the images in it, 1 for all alike. rounds: taken."""

    points: np.ndarray
    shares: np.ndarray
    rounds: int


def mean_shape(
    points: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    family: Family,
    smoothing: float,
    robust: bool = False,
) -> MeanShape:
    """The mean of point sets (k, 3) with weights (k,), in LPS mm in the world of the first.

    Each round moves every set onto the mean by the family of transforms and averages anew. robust:
    sets count less the further they stay from the mean of the others.
    """
    placed = [fit_rigid(p, points[0], w)(p) for p, w in zip(points, weights, strict=True)]
    shares = np.ones(len(points))
    mean = reference = _average(placed, weights, shares)
    for number in range(ROUNDS):
        placed = [
            fit(family, p, mean, w, smoothing)(p) for p, w in zip(points, weights, strict=True)
        ]
        if robust:
            shares = _shares(placed, weights, shares)
        new = _average(placed, weights, shares)
        new = fit_similarity(new, reference)(new)
        moved, mean = _rms(new - mean), new
        if moved < SETTLED * float(np.sqrt(reference.var(axis=0).sum())):
            return MeanShape(mean, shares, number + 1)
    return MeanShape(mean, shares, ROUNDS)


def _trust(weights: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """(n, k, 1): a keypoint is trusted more in the images where its weight is higher."""
    trust: np.ndarray = shares[:, None, None] * (np.stack(weights) + 1e-6)[..., None]
    return trust


def _average(
    points: Sequence[np.ndarray], weights: Sequence[np.ndarray], shares: np.ndarray
) -> np.ndarray:
    """(k, 3) means."""
    trust = _trust(weights, shares)
    return np.asarray((trust * points).sum(axis=0) / trust.sum(axis=0))


def _shares(
    placed: Sequence[np.ndarray], weights: Sequence[np.ndarray], shares: np.ndarray
) -> np.ndarray:
    """(n,) of mean 1: weights of Geman and McClure for how far each set is from the mean of the
    others, so that no set can win by pulling the mean to itself."""
    points, trust = np.stack(placed), _trust(weights, shares)
    own, rest = trust * points, trust.sum(axis=0) - trust
    others = (own.sum(axis=0) - own) / rest
    squared = ((points - others) ** 2).sum(axis=2)
    missed = np.sqrt(np.average(squared, axis=1, weights=(trust * rest)[..., 0]))
    found = median_trust(missed)
    return np.asarray(found / found.mean())


def _rms(offsets: np.ndarray) -> float:
    return float(np.sqrt((offsets**2).sum(axis=1).mean()))
