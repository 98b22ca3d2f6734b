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
        scale = SCALES * max(float(np.median(residuals)), 1e-9)
        current = weights / (1 + (residuals / scale) ** 2) ** 2
    return current
