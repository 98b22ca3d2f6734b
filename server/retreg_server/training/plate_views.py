"""Views of plates as segreg-fundus is trained on: turned, scaled, bent pieces of 192 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from retreg_server.registration.numerics.fields import identity_grid
from retreg_server.registration.preprocessing.even_light import FIELD
from retreg_server.training.intensities import between, blurred, chance
from retreg_server.training.segreg_pictures import LAYERS, Plate
from retreg_server.training.warps import random_rotation, smooth_noise

PIECE = 192  # pixels, of plates whose field of view has FIELD
SCALE = 0.25  # largest change of size, as a logarithm
FARTHEST = 0.55  # half sides of the plate from its middle to that of a piece
LEAST_INSIDE, TRIALS = 0.65, 20  # of a piece that is used; pieces that are tried


@dataclass(frozen=True, eq=False)
class PlateView:
    """A piece of a plate. layers: (1, 5, n, n), in the order of LAYERS, or a stack of them."""

    layers: torch.Tensor

    def layer(self, name: str) -> torch.Tensor:
        """(1, 1, n, n) of that name."""
        index = LAYERS.index(name)
        return self.layers[:, index : index + 1]


def random_frame(generator: torch.Generator) -> torch.Tensor:
    """A piece of a plate: (2, 3), from its normalised coordinates to those of a plate of FIELD
    pixels."""
    zoom = PIECE / FIELD * math.exp(between(-SCALE, SCALE, generator))
    turn = random_rotation(2, 180.0, generator)
    if chance(0.5, generator):
        turn = turn * torch.tensor([1.0, -1.0], device=generator.device)
    middle = [between(-FARTHEST, FARTHEST, generator) for _ in range(2)]
    return torch.cat([zoom * turn, torch.tensor(middle, device=generator.device)[:, None]], dim=1)


def view_at(plate: Plate, frame: torch.Tensor, points: torch.Tensor | None = None) -> PlateView:
    """The piece of the plate, or what lies at the points (1, n, n, 2) of the piece."""
    if points is None:
        points = identity_grid((PIECE, PIECE), frame.device)
    places = points @ frame[:, :2].T + frame[:, 2]
    height, width = plate.layers.shape[2:]
    longer = max(height, width)
    unit = torch.tensor([longer / width, longer / height], device=places.device)
    return PlateView(functional.grid_sample(plate.layers, places * unit, align_corners=False))


def filled_frame(plate: Plate, generator: torch.Generator) -> torch.Tensor:
    """A random frame, most of which lies in the field of view."""
    for _ in range(TRIALS):
        frame = random_frame(generator)
        if float(view_at(plate, frame).layer("inside").mean()) > LEAST_INSIDE:
            break
    return frame


def imperfect_picture(
    picture: torch.Tensor, inside: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """(1, 1, n, n) with other contrast, haze, blur and noise; 0 outside the field of view."""
    size = tuple(picture.shape[2:])
    image = picture * between(0.6, 1.4, generator)
    if chance(0.5, generator):
        image = image * torch.sigmoid(2 * smooth_noise(1, 4, size, generator) + 1.5)
    if chance(0.5, generator):
        image = image + between(0, 0.3, generator) * smooth_noise(1, 6, size, generator)
    image = blurred(image, [between(0.2, 1.2, generator)] * 2)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    image = image + between(0, 0.12, generator) * noise
    return image.clamp(-1, 1) * inside
