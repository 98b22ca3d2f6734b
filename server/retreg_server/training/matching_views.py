"""Two pictures of one eye whose true correspondences are known, to learn points and descriptors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from retreg_server.training.fundus_views import RetinaView, field_of_view, imperfect
from retreg_server.training.intensities import between, blurred, chance
from retreg_server.training.layered_eyes import LayeredEye
from retreg_server.training.warps import Warp, WarpRanges, random_warp, smooth_noise

FIELD = {True: 0.69, False: 0.94}  # half side of a field of view over that of a canvas, made up?
ZOOM = 0.35  # largest logarithm of the size of a view, both ways
FAR_ZOOM, FAR_SHARE = 0.6, 0.15  # the same in a share of the views
NARROW_SHARE = 0.2  # of the views whose field is small
BEND, SHEAR, STRETCH = 0.02, 0.06, 0.04


@dataclass(frozen=True, eq=False)
class MatchingPair:
    """Views of one eye; points: (2, k, 2) where its corners lie in each; seen: (2, k) bool."""

    views: tuple[RetinaView, RetinaView]
    points: torch.Tensor
    seen: torch.Tensor


def matching_pair(
    eye: LayeredEye,
    pixels: int,
    angle: float,
    generator: torch.Generator,
    textures: Sequence[torch.Tensor] = (),
) -> MatchingPair:
    """Two views of any rotation, by at most angle degrees apart, each of a layer of its own."""
    common = between(-180.0, 180.0, generator)
    turns = common, common + between(-angle, angle, generator)
    views = tuple(_view(eye, pixels, turn, generator, textures) for turn in turns)
    points = torch.stack([view.warp.image_of(eye.corners) for view in views])
    seen = torch.stack([view.visible(p) > 0 for view, p in zip(views, points, strict=True)])
    return MatchingPair((views[0], views[1]), points, seen)


def _view(
    eye: LayeredEye,
    pixels: int,
    turn: float,
    generator: torch.Generator,
    textures: Sequence[torch.Tensor],
) -> RetinaView:
    layer = eye.layers[drawn(len(eye.layers), generator)]
    zoom = FIELD[eye.is_made_up] * math.exp(_log_zoom(generator))
    reach = 0.1 + max(0.9 - zoom, 0.0) * 0.6
    ranges = WarpRanges(0.0, STRETCH, SHEAR, reach / zoom, BEND)
    warp = _turned(random_warp(2, ranges, zoom, generator), turn)
    places = warp.anatomy_at_pixels((pixels, pixels))
    seen = functional.grid_sample(layer[None], places, align_corners=False)
    shown = (seen[:, 1:] > 0.5) & field_of_view(pixels, generator)
    spoiled = imperfect(_hazy(seen[:, :1], generator), shown, generator, textures)
    return RetinaView(spoiled, shown, warp)


def drawn(count: int, generator: torch.Generator) -> int:
    """A whole number from 0 to count - 1."""
    return int(torch.randint(0, count, (), generator=generator, device=generator.device))


def _log_zoom(generator: torch.Generator) -> float:
    far = FAR_ZOOM if chance(FAR_SHARE, generator) else ZOOM
    narrow = 0.4 if chance(NARROW_SHARE, generator) else 0.0
    return between(-far, far, generator) - narrow


def _turned(warp: Warp, degrees: float) -> Warp:
    """The warp to an eye that is turned about the middle of its canvas."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[c, -s], [s, c]], device=warp.linear.device)
    return replace(warp, linear=turn @ warp.linear)


def _hazy(vessels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vessels (1, 1, n, n), some of them out of focus, thin ones lost, or with round lesions."""
    size = tuple(vessels.shape[2:])
    if chance(0.3, generator):
        soft = blurred(vessels, [between(1.0, 2.0, generator)] * 2)
        where = torch.sigmoid(3 * smooth_noise(1, 4, size, generator))
        vessels = vessels + where * (soft - vessels)
    if chance(0.25, generator):
        faintest = between(0.1, 0.4, generator)
        vessels = (vessels - faintest).clamp_min(0) / (1 - faintest)
    if chance(0.35, generator):
        noise = smooth_noise(1, round(between(30, 60, generator)), size, generator)
        spots = torch.sigmoid(8 * (noise - between(1.8, 2.8, generator)))
        region = torch.sigmoid(4 * (smooth_noise(1, 4, size, generator) - 0.3))
        vessels = torch.maximum(vessels, between(0.3, 1.0, generator) * spots * region)
    return vessels
