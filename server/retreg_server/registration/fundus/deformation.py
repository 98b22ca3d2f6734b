"""The local deformation that is left after a global transform, from tracked vessels.

Many points on vessels are tracked from one picture to the other and back, and a smooth field that
follows them without folding fills the space between them; what looks different there counts less.
Then the picture is bent by that field, and the points are tracked anew over the short way that is
left. Tracking alone goes astray over long ways, where a discrete search shows it another start.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional

from retreg_server.registration.fundus.matern_field import smooth_field
from retreg_server.registration.fundus.pixel_maps import PixelMap
from retreg_server.registration.fundus.tracking import resemblance, tracked, warped
from retreg_server.registration.fundus.vessel_pyramid import Level, alikeness, sampled
from retreg_server.registration.numerics.discrete_search import convex_start

SHRINK = 4  # full-size pixels per node of the residual
MOST_POINTS = 3000
LEAST_VESSEL = 0.1  # of the map: what is weaker is noise
FAR = 6.0  # pixels: a longer way on average may have led to the neighbour of a vessel
SMALLEST_JACOBIAN = 0.3
STIFFER = 10.0  # times, when a field folds or squeezes too much
# The windows of the rounds of tracking, and the longest way that they follow, in pixels.
ROUNDS = ((41, 20.0), (41, 20.0), (31, 20.0))
NODE = 6  # pixels per node
REACH = 7  # nodes along each axis
STIFFNESS = 0.2  # vessels are sparse: where there are some, costs are far above the average
AROUND = 5  # pixels over which the direction of a vessel is averaged


def searched_residual(fixed: Level, moving: Level, mapped: PixelMap) -> Level:
    """A level whose samples (h, w, 2) are displacements d in pixels: x goes to mapped(x + d(x)).

    fixed, moving: full-size levels (factor 1). Precise to a few pixels at best, on vessels only.
    """
    other, shown = warped(moving, mapped, fixed.valid.shape)
    both = _pooled((shown & fixed.valid)[None])[0]
    step = convex_start(_directed(fixed.samples[..., 0]), _directed(other), both, REACH, STIFFNESS)
    pixels = np.ascontiguousarray(NODE * step[0].movedim(0, -1).numpy())
    return Level(pixels, np.ones(pixels.shape[:2], bool), NODE)


def _directed(vessels: np.ndarray) -> torch.Tensor:
    """(3, h, w) on the nodes: a vessel map, alone and times the cosine and sine of twice the angle.

    The angle is that of the structure tensor, so that vessels that only cross are not mixed up.
    """
    orders = (1, 0), (0, 1)
    across, down = (cv2.Sobel(vessels, cv2.CV_32F, *order, scale=1 / 8) for order in orders)
    cosine, sine, energy = (
        cv2.blur(values, (AROUND, AROUND))
        for values in (across**2 - down**2, 2 * across * down, across**2 + down**2)
    )
    weight = vessels / (energy + 1e-6)
    return _pooled(np.stack([vessels, weight * cosine, weight * sine]))


def _pooled(maps: np.ndarray) -> torch.Tensor:
    """The means (c, h, w) over the pixels of each node."""
    return functional.avg_pool2d(torch.from_numpy(maps.astype(np.float32)), NODE)


def dense_residual(
    fixed: Level, moving: Level, mapped: PixelMap, start: Level | None = None
) -> Level:
    """A level whose samples (h, w, 2) are displacements d in pixels: x goes to mapped(x + d(x)).

    fixed, moving: full-size levels (factor 1). mapped: fixed to moving pixels. start: displacements
    that are nearly known already, such as those of a network, in the same form. Tracking starts
    there; where it finds nothing, the answer is mapped alone, and start when it finds nothing at
    all. Where the way is long, many further displacements are tried at once around the result, and
    tracked from there; the result under which the vessels are more alike is kept.
    """
    points = fixed.structured_points
    points = points[sampled(fixed, points)[0][:, 0] > LEAST_VESSEL]
    points = points[:: max(1, len(points) // MOST_POINTS)]
    found = _followed(points, fixed, moving, mapped, start or _nowhere(fixed))
    lengths = np.linalg.norm(sampled(found, points)[0], axis=1)
    if not len(points) or lengths.mean() < FAR:
        return found
    step = searched_residual(fixed, moving, _through(found, mapped))
    other = _followed(points, fixed, moving, mapped, _after(step, found, fixed))
    return max(found, other, key=lambda each: alikeness(fixed, moving, _through(each, mapped)))


def _nowhere(fixed: Level) -> Level:
    """No displacement anywhere."""
    return Level(np.zeros((2, 2, 2), np.float32), np.ones((2, 2), bool), max(fixed.valid.shape))


def _after(step: Level, found: Level, fixed: Level) -> Level:
    """The displacements that lead along step first, then along found."""
    nodes = _nodes(fixed)
    way = displaced(found, displaced(step, nodes.reshape(-1, 2))).reshape(nodes.shape) - nodes
    return Level(way.astype(np.float32), np.ones(way.shape[:2], bool), SHRINK)


def _nodes(fixed: Level) -> np.ndarray:
    """(h, w, 2) full-size points of the nodes of a residual."""
    rows, columns = (n // SHRINK for n in fixed.valid.shape)
    index: np.ndarray = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)
    return (index + 0.5) * SHRINK - 0.5


def _followed(
    points: np.ndarray, fixed: Level, moving: Level, mapped: PixelMap, current: Level
) -> Level:
    """The displacements that tracking the points (n, 2) makes of current."""
    for window, farthest in ROUNDS:
        through = _through(current, mapped)
        way, weights = tracked(points, fixed, moving, through, window, farthest)
        if not weights.any():
            break
        # Squared: most points of little weight were found in the wrong place.
        weights = np.square(weights * resemblance(points, way, fixed, moving, through))
        shifts = displaced(current, points + way) - points
        field = _unfolded(points, shifts, weights, fixed)
        if field is None:
            break  # what folds however stiff it is was followed wrongly
        current = field
    return current


def displaced(residual: Level, points: np.ndarray) -> np.ndarray:
    """points (n, 2) in full-size pixels plus the residual there."""
    moved: np.ndarray = points + sampled(residual, points)[0]
    return moved


def _through(residual: Level, mapped: PixelMap) -> PixelMap:
    return lambda points: mapped(displaced(residual, points))


def _unfolded(
    points: np.ndarray, shifts: np.ndarray, weights: np.ndarray, fixed: Level
) -> Level | None:
    """A smooth field, which is made stiffer until it does not fold; None without any weight."""
    if not weights.any():
        return None
    nodes = _nodes(fixed)
    shape = fixed.valid.shape[0], fixed.valid.shape[1]
    for stiffness in STIFFER ** np.arange(4):
        field = smooth_field(points, shifts, weights, shape, stiffness)
        samples = field(nodes.reshape(-1, 2)).reshape(nodes.shape).astype(np.float32)
        if _smallest_jacobian(samples) > SMALLEST_JACOBIAN:
            return Level(samples, np.ones(samples.shape[:2], bool), SHRINK)
    return None


def _smallest_jacobian(field: np.ndarray) -> float:
    down, across = np.gradient(field, SHRINK, axis=(0, 1))
    determinants = (1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0]
    return float(determinants.min())
