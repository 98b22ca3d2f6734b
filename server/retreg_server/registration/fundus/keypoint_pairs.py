"""Well-spread pairs of points that support a registration, each placed by local tracking."""

from __future__ import annotations

import numpy as np

from retreg_server.registration.fundus.global_alignment import TOLERANCE, LinearFit
from retreg_server.registration.fundus.pixel_maps import PixelPairs, QuadraticMap
from retreg_server.registration.fundus.prepared_picture import PreparedPicture
from retreg_server.registration.fundus.tracking import tracked
from retreg_server.registration.fundus.vessel_pyramid import values_at
from retreg_server.registration.preprocessing.vessel_corners import vessel_corners

CELLS = 16  # cells per side of the picture; each holds one inlier at most
FEWEST = 48  # below it, points on vessels join the matched features
MOST_OUTLIERS = 32
UNTRACKED = 0.1


def keypoint_pairs(
    fixed: PreparedPicture, moving: PreparedPicture, fit: LinearFit, mapped: QuadraticMap
) -> PixelPairs:
    """At most CELLS^2 inliers near mapped, and some of the matches that contradict it.

    Inliers are placed where the vessels around them are found in the moving picture; their weight
    falls from 1 with the distance between tracking there and back. Those that cannot be tracked, or
    only farther than a match may lie from the map, follow mapped and weigh little; outliers weigh
    nothing.
    """
    order = np.argsort(-fit.matches.distinctness * fit.inliers)[: int(fit.inliers.sum())]
    points = fit.matches.fixed[order]
    if len(points) < FEWEST:
        points = np.vstack([points, _vessel_points(fixed, moving, mapped)])
    points = _spread(points, max(fixed.vessels.shape) / CELLS)
    levels = fixed.levels[-1], moving.levels[-1]
    shift, weights = tracked(points, *levels, mapped, farthest=TOLERANCE)
    weights = np.maximum(weights, UNTRACKED)
    outliers = np.flatnonzero(~fit.inliers)[:MOST_OUTLIERS]
    return PixelPairs(
        np.vstack([points, fit.matches.fixed[outliers]]),
        np.vstack([mapped(points + shift), fit.matches.moving[outliers]]),
        np.concatenate([weights, np.zeros(len(outliers))]),
        np.arange(len(points) + len(outliers)) < len(points),
    )


def _vessel_points(
    fixed: PreparedPicture, moving: PreparedPicture, mapped: QuadraticMap
) -> np.ndarray:
    """Corners of the vessel tree (n, 2) that both pictures show."""
    level = fixed.levels[-1]
    points = vessel_corners(level.samples[..., 0].copy(), fixed.maps.valid, CELLS**2, 0.02, 12.0)
    shown: np.ndarray = points[values_at(moving.levels[-1], mapped(points))[1]]
    return shown


def _spread(points: np.ndarray, cell: float) -> np.ndarray:
    """The first point in each square cell."""
    if not len(points):
        return points
    _, first = np.unique((points // cell).astype(int), axis=0, return_index=True)
    spread: np.ndarray = points[np.sort(first)]
    return spread
