"""Made-up views of a retina: turned, bent, cut by a field of view, with imperfect vessel maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from retreg_server.registration.networks.input_range import normalised
from retreg_server.training.eyes import Retina
from retreg_server.training.intensities import between, blurred, chance
from retreg_server.training.warps import (
    Warp,
    WarpRanges,
    random_rotation,
    random_warp,
    smooth_noise,
)

NARROWEST, WIDEST = 1.0, 2.3  # half side of the view over the distance from disc to fovea
UNFRAMED = 0.66  # that distance on canvases where it is not known
MARGIN = 1.1  # half side of the largest view over half side of the canvas
TEXTURE_PER_VIEW = 1.5  # half side of a view over that of a texture; both were seen at one scale


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
    retina: Retina,
    pixels: int,
    angle: float,
    generator: torch.Generator,
    textures: Sequence[torch.Tensor] = (),
) -> RetinaView:
    """One view of pixels x pixels, turned by up to angle degrees.

    textures: (1, 1, n, n) each; false vessels are taken from them.
    """
    zoom = _zoom(retina, generator)
    reach = (0.15 * zoom + min(max(0.95 - zoom, 0.0), 0.45)) / zoom
    ranges = WarpRanges(angle, scale=0.1, shear=0.07, shift=reach, bend=0.025)
    warp = random_warp(2, ranges, zoom, generator)
    points = warp.anatomy_at_pixels((pixels, pixels))
    seen = functional.grid_sample(retina.canvas, points, align_corners=False)
    shown = (seen[:, 1:] > 0.5) & field_of_view(pixels, generator)
    return RetinaView(imperfect(seen[:, :1], shown, generator, textures), shown, warp)


def _zoom(retina: Retina, generator: torch.Generator) -> float:
    """Half side of the view over half side of the canvas."""
    unit = UNFRAMED
    if retina.disc is not None and retina.fovea is not None:
        unit = float((retina.fovea - retina.disc).norm())
    return min(MARGIN, unit * NARROWEST * (WIDEST / NARROWEST) ** between(0, 1, generator))


def field_of_view(pixels: int, generator: torch.Generator) -> torch.Tensor:
    """(1, 1, pixels, pixels) bool: a circle, often cut on two sides, or the whole square."""
    axis = (2 * torch.arange(pixels, device=generator.device) + 1) / pixels - 1
    x = axis[None, :] - between(-0.1, 0.1, generator)
    y = axis[:, None] - between(-0.1, 0.1, generator)
    shown = torch.ones(1, 1, pixels, pixels, dtype=torch.bool, device=generator.device)
    if chance(0.8, generator):
        shown = shown & (x**2 + y**2 < between(0.85, 1.15, generator) ** 2)
    if chance(0.4, generator):
        turn = between(0, math.pi, generator)
        shown = shown & ((math.cos(turn) * x + math.sin(turn) * y).abs()
                         < between(0.6, 0.95, generator))  # fmt: skip
    return shown


def imperfect(
    vessels: torch.Tensor,
    shown: torch.Tensor,
    generator: torch.Generator,
    textures: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Vessels that fade in places, lines that are none, blur and noise."""
    size = tuple(vessels.shape[2:])
    fading = torch.sigmoid(3 * (smooth_noise(1, 5, size, generator) + between(0.2, 2, generator)))
    image = vessels ** between(0.6, 1.8, generator) * fading
    if textures and chance(0.7, generator):
        image = torch.maximum(image, _texture(textures, size, generator))
    points = round(14 * 3 ** between(0, 1, generator))
    ridges = torch.exp(-((smooth_noise(1, points, size, generator) / 0.12) ** 2))
    extent = between(-0.7, 0.7, generator)
    clutter = ridges * torch.sigmoid(4 * (smooth_noise(1, 6, size, generator) - extent))
    image = torch.maximum(image, between(0, 0.8, generator) * clutter)
    image = blurred(image, [between(0.3, 1.0, generator)] * 2)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    image = (image + between(0, 0.08, generator) * noise).clamp_min(0)
    return normalised(image * shown)


def _texture(
    textures: Sequence[torch.Tensor], size: tuple[int, ...], generator: torch.Generator
) -> torch.Tensor:
    """Part of a texture, turned and mirrored where it ends, stronger in some places."""
    index = torch.randint(0, len(textures), (), generator=generator, device=generator.device)
    scale = TEXTURE_PER_VIEW * between(0.8, 1.25, generator)
    turn = random_rotation(2, 180.0, generator)
    shift = torch.rand(2, 1, generator=generator, device=generator.device)
    theta = torch.cat([scale * turn, shift], dim=1)
    grid = functional.affine_grid(theta[None], [1, 1, *size], align_corners=False)
    texture = functional.grid_sample(
        textures[int(index)], grid, padding_mode="reflection", align_corners=False
    )
    extent = between(-2, 1, generator)
    patches = torch.sigmoid(3 * (smooth_noise(1, 5, size, generator) - extent))
    return between(0.3, 1.3, generator) * texture * patches
