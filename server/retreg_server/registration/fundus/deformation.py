"""The local deformation that is left after a global transform, from tracked vessels.

Many points on vessels are tracked from one picture to the other and back, and a smooth field that
follows them without folding fills the space between them; what looks different there counts less.
Then the picture is bent by that field, and the points are tracked anew over the short way that is
left. Tracking alone goes astray over long ways, where a discrete search shows it another start.
"""

from __future__ import annotations

import numpy as np

from retreg_server.registration.fundus.matern_field import smooth_field
from retreg_server.registration.fundus.pixel_maps import PixelMap
from retreg_server.registration.fundus.tracking import patch_similarity, tracked
from retreg_server.registration.fundus.vessel_pyramid import (
    PixelDisplacement,
    VesselPyramidLevel,
    values_at,
    vessel_similarity,
)

SHRINK = 4  # full-size pixels per node of the displacement
MOST_POINTS = 3000
LEAST_VESSEL = 0.1  # of the map: what is weaker is noise
FAR = 6.0  # pixels: a longer way on average may have led to the neighbour of a vessel
SMALLEST_JACOBIAN = 0.3
STIFFER = 10.0  # times, when a field folds or squeezes too much
# The windows of the rounds of tracking, and the longest way that they follow, in pixels.
ROUNDS = ((41, 20.0), (41, 20.0), (31, 20.0))


def dense_displacement(
    fixed: VesselPyramidLevel,
    moving: VesselPyramidLevel,
    mapped: PixelMap,
    start: PixelDisplacement | None = None,
) -> PixelDisplacement:
    """d for which x goes to mapped(x + d(x)).

    fixed, moving: full-size levels (factor 1). mapped: fixed to moving pixels. start: displacements
    that are nearly known already, such as those of a network. Tracking starts
    there; where it finds nothing, the answer is mapped alone, and start when it finds nothing at
    all. Where the way is long, many further displacements are tried at once around the result, and
    tracked from there; the result under which the vessels are more alike is kept.
    """
    points = fixed.structured_points
    points = points[values_at(fixed, points)[0] > LEAST_VESSEL]
    points = points[:: max(1, len(points) // MOST_POINTS)]
    start = start or PixelDisplacement.none(fixed.valid.shape)
    found = _followed(points, fixed, moving, mapped, start)
    lengths = np.linalg.norm(found.at(points), axis=1)
    if not len(points) or lengths.mean() < FAR:
        return found
    # Few pairs need it, and loading torch takes longer than all that happened before.
    from retreg_server.registration.fundus.displacement_search import searched_displacement

    step = searched_displacement(fixed, moving, _through(found, mapped))
    searched = _followed(points, fixed, moving, mapped, _after(step, found, fixed))
    candidates = (found, searched)
    return max(candidates, key=lambda d: vessel_similarity(fixed, moving, _through(d, mapped)))


def _after(
    step: PixelDisplacement, found: PixelDisplacement, fixed: VesselPyramidLevel
) -> PixelDisplacement:
    """The displacements that lead along step first, then along found."""
    nodes = _nodes(fixed)
    vectors = found(step(nodes.reshape(-1, 2))).reshape(nodes.shape) - nodes
    return PixelDisplacement(vectors.astype(np.float32), SHRINK)


def _nodes(fixed: VesselPyramidLevel) -> np.ndarray:
    """(h, w, 2) full-size points of the nodes of a displacement."""
    rows, columns = (n // SHRINK for n in fixed.valid.shape)
    index: np.ndarray = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
    return (index + 0.5) * SHRINK - 0.5


def _followed(
    points: np.ndarray,
    fixed: VesselPyramidLevel,
    moving: VesselPyramidLevel,
    mapped: PixelMap,
    current: PixelDisplacement,
) -> PixelDisplacement:
    """The displacements that tracking the points (n, 2) makes of current."""
    for window, farthest in ROUNDS:
        through = _through(current, mapped)
        way, weights = tracked(points, fixed, moving, through, window, farthest)
        if not weights.any():
            break
        alike, good = np.zeros(len(points)), weights > 0
        alike[good] = patch_similarity(points[good], way[good], fixed, moving, through)
        # Squared: most points of little weight were found in the wrong place.
        weights = np.square(weights * alike)
        vectors = current(points + way) - points
        field = _unfolded(points, vectors, weights, fixed)
        if field is None:
            break  # what folds however stiff it is was followed wrongly
        current = field
    return current


def _through(displacement: PixelDisplacement, mapped: PixelMap) -> PixelMap:
    return lambda points: mapped(displacement(points))


def _unfolded(
    points: np.ndarray, vectors: np.ndarray, weights: np.ndarray, fixed: VesselPyramidLevel
) -> PixelDisplacement | None:
    """A smooth field, which is made stiffer until it does not fold; None without any weight."""
    if not weights.any():
        return None
    nodes = _nodes(fixed)
    shape = fixed.valid.shape[0], fixed.valid.shape[1]
    for stiffness in STIFFER ** np.arange(4):
        field = smooth_field(points, vectors, weights, shape, stiffness)
        samples = field(nodes.reshape(-1, 2)).reshape(nodes.shape).astype(np.float32)
        if _smallest_jacobian(samples) > SMALLEST_JACOBIAN:
            return PixelDisplacement(samples, SHRINK)
    return None


def _smallest_jacobian(field: np.ndarray) -> float:
    down, across = np.gradient(field, SHRINK, axis=(0, 1))
    determinants = (1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0]
    return float(determinants.min())
