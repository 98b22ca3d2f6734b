"""Closed-form fits that mistrust pairs of points which do not follow the rest."""

from __future__ import annotations

from typing import Literal

import numpy as np

from retreg.fitting import fit

Linear = Literal["rigid", "similarity", "affine"]
ROUNDS = 10
SCALES = 2.0  # median residuals at which a pair has a quarter of its weight


def robust_weights(
    family: Linear, fixed: np.ndarray, moving: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Weights (n,) under which the least-squares fit of the family is a robust one.

    fixed, moving: (n, 3) LPS mm. Iteratively reweighted least squares with the weights of Geman
    and McClure (1987), whose scale follows the median residual.
    """
    current = weights
    for _ in range(ROUNDS):
        residuals = np.linalg.norm(fit(family, fixed, moving, current)(fixed) - moving, axis=1)
        current = weights * median_trust(residuals)
    return current


def trust(ratios: np.ndarray) -> np.ndarray:
    """Weights of Geman and McClure (1987): 1 for residuals of 0, a quarter for those of 1."""
    return np.asarray(1 / (1 + ratios**2) ** 2)


def median_trust(residuals: np.ndarray) -> np.ndarray:
    """The same where a residual of SCALES times the median has a quarter of the weight."""
    return trust(residuals / (SCALES * max(float(np.median(residuals)), 1e-9)))
