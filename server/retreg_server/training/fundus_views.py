"""Made-up views of a retina: turned, bent, cut by a field of view, with imperfect vessel maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from retreg_server.registration.keypoint_inputs import normalised
from retreg_server.training.eyes import Retina
from retreg_server.training.intensities import between, blurred, chance
from retreg_server.training.warps import Warp, WarpRanges, random_warp, smooth_noise

NARROWEST, WIDEST = 0.45, 1.05  # half side of the view over half side of the canvas


@dataclass(frozen=True, eq=False)
class RetinaView:
    """image: (1, 1, n, n), 0 to 1. shown: (1, 1, n, n) bool. warp: from the view to the canvas."""

    image: torch.Tensor
    shown: torch.Tensor
    warp: Warp

    def visible(self, points: torch.Tensor) -> torch.Tensor:
        """(k,) float: 1 for points (k, 2) that lie in the part that is shown."""
        inside = (points.abs() < 0.97).all(dim=1)
        place = functional.grid_sample(
            self.shown.float(), points.reshape(1, -1, 1, 2).detach(), align_corners=False
        )
        return (inside & (place.reshape(-1) > 0.5)).float()


def retina_view(
    retina: Retina, pixels: int, angle: float, generator: torch.Generator
) -> RetinaView:
    """One view of pixels x pixels, turned by up to angle degrees."""
    zoom = NARROWEST * (WIDEST / NARROWEST) ** between(0, 1, generator)
    ranges = WarpRanges(angle, scale=0.06, shear=0.05, shift=0.35, bend=0.02)
    warp = random_warp(2, ranges, zoom, generator)
    points = warp.anatomy_at_pixels((pixels, pixels))
    seen = functional.grid_sample(retina.canvas, points, align_corners=False)
    shown = (seen[:, 1:] > 0.5) & _field_of_view(pixels, generator)
    return RetinaView(_imperfect(seen[:, :1], shown, generator), shown, warp)


def _field_of_view(pixels: int, generator: torch.Generator) -> torch.Tensor:
    """(1, 1, pixels, pixels) bool: a circle, most often, or the whole square."""
    if chance(0.3, generator):
        return torch.ones(1, 1, pixels, pixels, dtype=torch.bool, device=generator.device)
    axis = (2 * torch.arange(pixels, device=generator.device) + 1) / pixels - 1
    x = axis - between(-0.1, 0.1, generator)
    y = axis - between(-0.1, 0.1, generator)
    radius = between(0.85, 1.1, generator)
    return (x[None, :] ** 2 + y[:, None] ** 2 < radius**2)[None, None]


def _imperfect(
    vessels: torch.Tensor, shown: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Vessels that fade in places, lines that are none, blur and noise."""
    size = tuple(vessels.shape[2:])
    fading = torch.sigmoid(3 * (smooth_noise(1, 5, size, generator) + between(0.2, 2, generator)))
    image = vessels ** between(0.6, 1.8, generator) * fading
    ridges = torch.exp(-((smooth_noise(1, 14, size, generator) / 0.08) ** 2))
    clutter = ridges * torch.sigmoid(4 * (smooth_noise(1, 6, size, generator) - 0.7))
    image = image + between(0, 0.6, generator) * clutter
    image = blurred(image, [between(0.3, 1.0, generator)] * 2)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    image = (image + between(0, 0.08, generator) * noise).clamp_min(0)
    return normalised(image * shown)
