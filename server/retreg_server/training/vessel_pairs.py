"""Two imperfect vessel maps of one piece of a retina, bent against each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from retreg_server.training.eyes import Retina
from retreg_server.training.fundus_views import imperfect
from retreg_server.training.intensities import between, chance
from retreg_server.training.known_pairs import KnownPairs, known_fields
from retreg_server.training.warps import WarpRanges, random_warp

PIXELS = 192  # a piece of a picture whose field of view has twice as many
PHANTOM_FIELD, REAL_FIELD = 0.69, 0.94  # half side of the field of view over that of the canvas
VIEW = WarpRanges(180.0, scale=0.15, shear=0.03, shift=1.0, bend=0.0)
RESIDUAL = WarpRanges(2.5, scale=0.02, shear=0.015, shift=0.03, bend=0.06)
RIM = 2.0  # radius of the field of view in half sides of the piece


def vessel_pair(
    retina: Retina, textures: Sequence[torch.Tensor], generator: torch.Generator
) -> KnownPairs:
    """One pair; textures as in fundus_views."""
    field = PHANTOM_FIELD if retina.name.startswith("phantom") else REAL_FIELD
    view = random_warp(2, VIEW, field / 2, generator)
    residual = random_warp(2, RESIDUAL, 1.0, generator)
    anatomy_points = residual.anatomy_at_pixels((PIXELS, PIXELS))
    points = view.anatomy_of(anatomy_points.reshape(-1, 2)).reshape(anatomy_points.shape)
    images, shown = [], []
    for places in (points, view.anatomy_at_pixels((PIXELS, PIXELS))):
        seen = functional.grid_sample(retina.canvas, places, align_corners=False)
        visible = (seen[:, 1:] > 0.5) & _inside_field(generator)
        images.append(imperfect(seen[:, :1], visible, generator, textures))
        shown.append(visible)
    fields, both = known_fields(residual, (shown[0], shown[1]))
    return KnownPairs(torch.cat(images), fields, both)


def _inside_field(generator: torch.Generator) -> torch.Tensor:
    """(1, 1, n, n) bool: all of the piece, or what lies inside a large circle."""
    axis = (2 * torch.arange(PIXELS, device=generator.device) + 1) / PIXELS - 1
    if chance(0.5, generator):
        return torch.ones(1, 1, PIXELS, PIXELS, dtype=torch.bool, device=generator.device)
    turn, far = between(0, 2 * torch.pi, generator), between(1.0, 2.2, generator)
    direction = torch.tensor(turn).sin(), torch.tensor(turn).cos()
    x, y = axis[None, :] - far * float(direction[0]), axis[:, None] - far * float(direction[1])
    return (x**2 + y**2 < RIM**2)[None, None]
