"""Pairs of pictures of one retina, of any two modalities, whose displacement field is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from retreg_server.registration.networks.segreg_net import BRANCHES
from retreg_server.training.intensities import chance
from retreg_server.training.known_pairs import known_fields
from retreg_server.training.plate_views import (
    PIECE,
    filled_frame,
    imperfect_picture,
    view_at,
)
from retreg_server.training.segreg_pictures import Plate
from retreg_server.training.warps import WarpRanges, random_warp

RESIDUAL = WarpRanges(2.0, scale=0.02, shear=0.015, shift=0.04, bend=0.08)


@dataclass(frozen=True, eq=False)
class SegRegPair:
    """Fixed and moving, in this order.

    branches: the network's branch for each. pictures, inside, vessels: (2, 1, n, n); what the
    network sees, its field of view, the truth. fields, seen: as KnownPairs.
    """

    branches: tuple[str, str]
    pictures: torch.Tensor
    inside: torch.Tensor
    vessels: torch.Tensor
    fields: torch.Tensor
    seen: torch.Tensor


def segreg_pair(plate: Plate, generator: torch.Generator) -> SegRegPair:
    """A random piece of the plate twice, bent against each other."""
    residual = random_warp(2, RESIDUAL, 1.0, generator)
    frame = filled_frame(plate, generator)
    fixed = view_at(plate, frame, residual.anatomy_at_pixels((PIECE, PIECE)))
    moving = view_at(plate, frame)
    branches, pictures, shown, vessels = [], [], [], []
    for view in (fixed, moving):
        branch = BRANCHES[int(chance(0.5, generator))]
        inside = (view.layer("inside") > 0.5).float()
        branches.append(branch)
        pictures.append(imperfect_picture(view.layer(branch), inside, generator))
        shown.append(inside)
        vessels.append(view.layer("vessels").clamp(0, 1) * inside)
    fields, seen = known_fields(residual, (shown[0], shown[1]))
    return SegRegPair(
        (branches[0], branches[1]), torch.cat(pictures), torch.cat(shown), torch.cat(vessels),
        fields, seen,
    )  # fmt: skip

