"""Transforms from corresponding points, in closed form: the fits that keypoints drive.

Every function takes fixed and moving points (n, 3) LPS mm and optional weights (n,) from 0
upwards. All raise DegeneratePointsError when the points do not determine the transform (fewer
than three, coincident, or on one line) and InputError when the arrays do not belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from retreg.closed_form import PointPairs, affine_matrix, rigid_matrix, similarity_matrix
from retreg.errors import OptionError
from retreg.splines import Kernel, fit_splines
from retreg.transforms import Affine, ThinPlateSpline

Family = Literal["rigid", "similarity", "affine", "tps"]


def fit_rigid(fixed: np.ndarray, moving: np.ndarray, weights: np.ndarray | None = None) -> Affine:
    """The rotation and translation that fit best; never a reflection."""
    return Affine(rigid_matrix(PointPairs.checked(fixed, moving, weights)))


def fit_similarity(
    fixed: np.ndarray, moving: np.ndarray, weights: np.ndarray | None = None
) -> Affine:
    """The rotation, translation and common scale that fit best; never a reflection."""
    return Affine(similarity_matrix(PointPairs.checked(fixed, moving, weights)))


def fit_affine(fixed: np.ndarray, moving: np.ndarray, weights: np.ndarray | None = None) -> Affine:
    """The affine transform that fits best."""
    return Affine(affine_matrix(PointPairs.checked(fixed, moving, weights)))


def fit_tps(
    fixed: np.ndarray,
    moving: np.ndarray,
    weights: np.ndarray | None = None,
    smoothing: float = 0.0,
    kernel: Kernel = "r",
) -> ThinPlateSpline:
    """The smoothing thin-plate spline; see ThinPlateSpline for smoothing and kernel."""
    return ThinPlateSpline(fixed, moving, smoothing, weights, kernel)


def fit_tps_sweep(
    fixed: np.ndarray,
    moving: np.ndarray,
    smoothings: Sequence[float],
    weights: np.ndarray | None = None,
    kernel: Kernel = "r",
) -> tuple[ThinPlateSpline, ...]:
    """fit_tps for each of smoothings, for little more than the price of one."""
    solved = fit_splines(fixed, moving, smoothings, weights, kernel)
    return tuple(
        ThinPlateSpline(fixed, moving, smoothing, weights, kernel, spline)
        for smoothing, spline in zip(smoothings, solved, strict=True)
    )


def fit(
    family: Family,
    fixed: np.ndarray,
    moving: np.ndarray,
    weights: np.ndarray | None = None,
    smoothing: float = 0.0,
) -> Affine | ThinPlateSpline:
    """The transform of the named family; smoothing matters for "tps" only."""
    if family == "rigid":
        return fit_rigid(fixed, moving, weights)
    if family == "similarity":
        return fit_similarity(fixed, moving, weights)
    if family == "affine":
        return fit_affine(fixed, moving, weights)
    if family == "tps":
        return fit_tps(fixed, moving, weights, smoothing)
    raise OptionError(
        f"The transform {family!r} cannot be fitted to points; use one of "
        f"{', '.join(get_args(Family))}."
    )
