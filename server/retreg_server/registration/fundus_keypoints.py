"""Well-spread pairs of points that support a registration, each placed by local tracking."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retreg_server.registration.dense_residual import warped
from retreg_server.registration.fundus_global import LinearFit, Side
from retreg_server.registration.parametric_refinement import QuadraticMap, sampled

CELLS = 16  # cells per side of the picture; each holds one inlier at most
FEWEST = 48  # below it, points on vessels join the matched features
MOST_OUTLIERS = 32
WINDOW = 31
FARTHEST = 5.0  # pixels that tracking may move a point
UNTRACKED = 0.1


@dataclass(frozen=True, eq=False)
class PixelPairs:
    """Points (n, 2) in fixed and moving pixels, weights (n,) and inlier states (n,)."""

    fixed: np.ndarray
    moving: np.ndarray
    weights: np.ndarray
    inliers: np.ndarray


def keypoint_pairs(fixed: Side, moving: Side, fit: LinearFit, mapped: QuadraticMap) -> PixelPairs:
    """At most CELLS^2 inliers near mapped, and some of the matches that contradict it.

    Inliers are placed where the vessels around them are found in the moving picture; their weight
    falls from 1 with the distance between tracking there and back. Those that cannot be tracked
    follow mapped and weigh little; outliers weigh nothing.
    """
    order = np.argsort(-fit.matches.distinctness * fit.inliers)[: int(fit.inliers.sum())]
    points = fit.matches.fixed[order]
    if len(points) < FEWEST:
        points = np.vstack([points, _vessel_points(fixed, moving, mapped)])
    points = _spread(points, max(fixed.vessels.shape) / CELLS)
    shift, weights = _tracked(points, fixed, moving, mapped)
    outliers = np.flatnonzero(~fit.inliers)[:MOST_OUTLIERS]
    return PixelPairs(
        np.vstack([points, fit.matches.fixed[outliers]]),
        np.vstack([mapped(points + shift), fit.matches.moving[outliers]]),
        np.concatenate([weights, np.zeros(len(outliers))]),
        np.arange(len(points) + len(outliers)) < len(points),
    )


def _vessel_points(fixed: Side, moving: Side, mapped: QuadraticMap) -> np.ndarray:
    """Corners of the vessel tree (n, 2) that both pictures show."""
    found = cv2.goodFeaturesToTrack(
        fixed.levels[-1].samples[..., 0].copy(), CELLS**2, 0.02, 12.0,
        mask=fixed.maps.valid.astype(np.uint8), blockSize=9,
    )
    if found is None:
        return np.zeros((0, 2))
    points = found.reshape(-1, 2).astype(np.float64)
    shown: np.ndarray = points[sampled(moving.levels[-1], mapped(points))[1]]
    return shown


def _spread(points: np.ndarray, cell: float) -> np.ndarray:
    """The first point in each square cell."""
    if not len(points):
        return points
    _, first = np.unique((points // cell).astype(int), axis=0, return_index=True)
    spread: np.ndarray = points[np.sort(first)]
    return spread


def _tracked(
    points: np.ndarray, fixed: Side, moving: Side, mapped: QuadraticMap
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (n, 2) in fixed pixels to where mapped should look instead, and weights (n,)."""
    if not len(points):
        return np.zeros((0, 2)), np.zeros(0)
    height, width = fixed.vessels.shape
    other, _ = warped(moving.levels[-1], mapped, (height, width))
    here = fixed.levels[-1].samples[..., 0]
    first, second = (np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8) for x in (here, other))
    settings = {"winSize": (WINDOW, WINDOW), "maxLevel": 1}
    start = points.astype(np.float32)[:, None]
    there, found, _ = cv2.calcOpticalFlowPyrLK(first, second, start, None, **settings)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(second, first, there, None, **settings)
    shift = (there - start)[:, 0].astype(np.float64)
    mismatch = np.linalg.norm((back - start)[:, 0], axis=1)
    good = (found & found_back).ravel().astype(bool)
    good &= (np.linalg.norm(shift, axis=1) < FARTHEST) & (mismatch < 1)
    shift[~good] = 0
    return shift, np.where(good, 1 / (1 + mismatch**2), UNTRACKED)
