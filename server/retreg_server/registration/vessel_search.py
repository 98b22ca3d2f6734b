"""Large displacements between two vessel maps, by trying many at once on a coarse lattice."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional

from retreg_server.registration.convex_start import convex_start
from retreg_server.registration.parametric_refinement import Level
from retreg_server.registration.vessel_agreement import PixelMap
from retreg_server.registration.vessel_tracking import warped

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
