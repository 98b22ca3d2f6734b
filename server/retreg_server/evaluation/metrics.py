"""The measures of the benchmarks. Points are (n, 3) LPS mm; a pixel of a picture counts as 1 mm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from retreg.geometry import Grid
from retreg.quality import jacobian_determinants
from retreg.transforms import Transform

REFERENCE_PIXELS = 1000
FAILURE_PIXELS = 25.0
FOLDS_AT = 200_000


def landmark_distances(
    transform: Transform, fixed_points: np.ndarray, moving_points: np.ndarray
) -> np.ndarray:
    """(n,) distances in mm between the mapped fixed points and their moving partners."""
    difference = transform(np.asarray(fixed_points, dtype=np.float64)) - moving_points
    distances: np.ndarray = np.linalg.norm(difference, axis=1)
    return distances


def folding(transform: Transform, grid: Grid) -> float:
    """Share of the voxels of a grid at which the Jacobian determinant is 0 or less.

    By central differences over one voxel, in at most about FOLDS_AT voxels.
    """
    step = max(1, round((np.prod(grid.size) / FOLDS_AT) ** (1 / 3)))
    width = float(grid.spacing.min())
    found = jacobian_determinants(transform, grid.lattice(step), np.eye(3), width)
    return float((found <= 0).mean())


def reference_pixel(width: int, height: int) -> float:
    """Pixels of a picture of that size that one pixel covers when its longer side has 1000."""
    return max(width, height) / REFERENCE_PIXELS


def success_curve(errors: Iterable[float], thresholds: Sequence[float]) -> np.ndarray:
    """Share of errors (one per pair) below each threshold; NaN counts as a failure."""
    values = np.array(list(errors), dtype=np.float64)
    if values.size == 0:
        return np.full(len(thresholds), np.nan)
    values = np.where(np.isnan(values), np.inf, values)
    share: np.ndarray = (values[:, None] < np.asarray(thresholds)).mean(axis=0)
    return share


def area_under_curve(errors: Iterable[float], limit: int = 25) -> float:
    """Mean of the success curve at the thresholds 1, 2, ..., limit pixels.

    Definition of the FIRE benchmark (Hernandez-Matas et al. 2017) as SuperRetina's evaluation
    computes it: errors are mean landmark errors, one per pair.
    """
    return float(success_curve(errors, range(1, limit + 1)).mean())


def fire_class_of(median: float, largest: float) -> str:
    """FIRE's three classes from the landmark distances of a pair in pixels of the original size.

    "failed" without a transform (NaN), "inaccurate" when the largest exceeds 50 or the median 20,
    else "acceptable".
    """
    if np.isnan(median):
        return "failed"
    return "inaccurate" if largest > 50 or median > 20 else "acceptable"


def dice_by_label(first: np.ndarray, second: np.ndarray) -> dict[int, float]:
    """Dice overlap 2|A∩B| / (|A|+|B|) of every label above 0 that occurs in both arrays.

    Two arrays of whole numbers of the same shape, for instance (k, j, i).
    """
    first, second = (np.asarray(a).astype(np.int64).ravel() for a in (first, second))
    top = int(max(first.max(initial=0), second.max(initial=0))) + 1
    count_first = np.bincount(first, minlength=top)
    count_second = np.bincount(second, minlength=top)
    both = np.bincount(first[first == second], minlength=top)
    shared = [n for n in range(1, top) if count_first[n] and count_second[n]]
    return {n: float(2 * both[n] / (count_first[n] + count_second[n])) for n in shared}


def mean_dice(first: np.ndarray, second: np.ndarray, labels: Iterable[int]) -> float:
    """Mean Dice over labels; one that is missing from either array counts as 0."""
    scores = dice_by_label(first, second)
    values = [scores.get(label, 0.0) for label in labels]
    return float(np.mean(values)) if values else float("nan")


def rate(flags: Iterable[bool]) -> float:
    """Share of flags that are true; NaN when there are none."""
    values = list(flags)
    return sum(values) / len(values) if values else float("nan")
