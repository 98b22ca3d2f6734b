"""Large displacements between two vessel maps, by trying many at once on a coarse lattice."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional

from retreg_server.registration.fundus.pixel_maps import PixelMap
from retreg_server.registration.fundus.tracking import warped
from retreg_server.registration.fundus.vessel_pyramid import PixelDisplacement, VesselPyramidLevel
from retreg_server.registration.numerics.discrete_search import convex_start

NODE = 6  # pixels per node
REACH = 7  # nodes along each axis
STIFFNESS = 0.2  # vessels are sparse: where there are some, costs are far above the average
AROUND = 5  # pixels over which the direction of a vessel is averaged


def searched_displacement(
    fixed: VesselPyramidLevel, moving: VesselPyramidLevel, mapped: PixelMap
) -> PixelDisplacement:
    """d for which x goes to mapped(x + d(x)), by trying many at once (see discrete_search).

    fixed, moving: full-size levels (factor 1). Precise to a few pixels at best, on vessels only.
    """
    warped_moving, shown = warped(moving, mapped, fixed.valid.shape)
    both = _pooled((shown & fixed.valid)[None])[0]
    step = convex_start(
        _directed(fixed.samples[..., 0]), _directed(warped_moving), both, REACH, STIFFNESS
    )
    pixels = np.ascontiguousarray(NODE * step[0].movedim(0, -1).numpy())
    return PixelDisplacement(pixels, NODE)


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
