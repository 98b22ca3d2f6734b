"""Points of two views of an eye as the product finds and describes them, and who is whose partner.

The network that describes them is finished, so that a pair is made once and kept in a file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from retreg_server.registration.fundus.learned_features import described_corners
from retreg_server.registration.fundus.point_matching import TurnedFeatures
from retreg_server.registration.networks.superglue_net import Points
from retreg_server.training.fundus_views import RetinaView
from retreg_server.training.intensities import between
from retreg_server.training.matching_views import MatchingPair

FIELD = 768  # pixels of the field of view in which the product finds corners
NEAR, FAR = 6.0, 10.0  # of these: partners lie as near; who has nobody nearer than far has none
ALONE, UNSURE = -1, -2
TURN, SCALE, SHIFT = 12.0, 0.15, 0.08  # degrees, logarithm, half sides of a view


@dataclass(frozen=True, eq=False)
class GluePair:
    """points: of two views, strongest first. partners: the number of each point's partner in the
    other view (n,), ALONE, or UNSURE. eye: the number of the eye."""

    points: tuple[Points, Points]
    partners: tuple[torch.Tensor, torch.Tensor]
    eye: int

    def on(self, device: str) -> GluePair:
        """The same on another device."""
        points = [Points(*(each.to(device) for each in found)) for found in self.points]
        partners = [each.to(device) for each in self.partners]
        return GluePair((points[0], points[1]), (partners[0], partners[1]), self.eye)

    def strongest(self, counts: tuple[int, int]) -> GluePair:
        """The pair with so many points at most; whoever loses the partner is alone."""
        points = tuple(
            Points(*(each[:n] for each in found))
            for found, n in zip(self.points, counts, strict=True)
        )
        partners = tuple(
            torch.where(each[:n] < other, each[:n], ALONE)
            for each, n, other in zip(self.partners, counts, counts[::-1], strict=True)
        )
        return GluePair((points[0], points[1]), (partners[0], partners[1]), self.eye)

    def moved(self, generator: torch.Generator) -> GluePair:
        """The pair with the places of each view turned, scaled and shifted a little, so that few
        pairs do not become known by their places."""
        points = []
        for descriptors, told in self.points:
            turn = math.radians(between(-TURN, TURN, generator))
            scale = math.exp(between(-SCALE, SCALE, generator))
            c, s = scale * math.cos(turn), scale * math.sin(turn)
            shift = torch.tensor([between(-SHIFT, SHIFT, generator) for _ in range(2)])
            places = told[:, :2] @ torch.tensor([[c, s], [-s, c]]) + shift
            points.append(Points(descriptors, torch.cat([places, told[:, 2:]], dim=1)))
        return GluePair((points[0], points[1]), self.partners, self.eye)

    def against(self, other: GluePair) -> GluePair:
        """Its first view against the second of another eye: nobody has a partner."""
        points = self.points[0], other.points[1]
        alone = tuple(torch.full((len(each.told),), ALONE) for each in points)
        return GluePair(points, (alone[0], alone[1]), self.eye)


def glue_pair(pair: MatchingPair, eye: int) -> GluePair:
    """What the product finds in two views, and the partners by the known warps."""
    found = [_features(view) for view in pair.views]
    places = [torch.from_numpy((2 * each.points + 1) / FIELD - 1).float() for each in found]
    there = [_there(*pair.views, places[0]), _there(*pair.views[::-1], places[1])]
    apart = torch.cdist(there[0], places[1]) * FIELD / 2
    back = torch.cdist(places[0], there[1]) * FIELD / 2
    partners = _partners((apart + back) / 2)
    points = [
        Points(torch.from_numpy(each.descriptors), torch.from_numpy(each.told)) for each in found
    ]
    return GluePair((points[0], points[1]), partners, eye)


def _features(view: RetinaView) -> TurnedFeatures:
    vessels, shown = (
        cv2.resize(layer[0, 0].float().cpu().numpy(), (FIELD, FIELD), interpolation=mode)
        for layer, mode in ((view.image, cv2.INTER_LINEAR), (view.shown, cv2.INTER_NEAREST))
    )
    return described_corners(vessels, shown > 0)


def _there(view: RetinaView, other: RetinaView, places: torch.Tensor) -> torch.Tensor:
    """Where places (n, 2) of one view lie in the other."""
    return other.warp.image_of(view.warp.anatomy_of(places))


def _partners(apart: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From distances (n, m) in pixels: mutual nearest within NEAR; nobody within FAR is alone."""
    if not apart.numel():
        return tuple(torch.full((n,), ALONE) for n in apart.shape)  # type: ignore[return-value]
    found = []
    for table in (apart, apart.T):
        nearest, closest = table.argmin(dim=1), table.amin(dim=1)
        is_mutual = table.argmin(dim=0)[nearest] == torch.arange(len(table))
        alone = torch.where(closest > FAR, ALONE, UNSURE)
        found.append(torch.where(is_mutual & (closest < NEAR), nearest, alone))
    return found[0], found[1]


def kept_pair(folder: Path, index: int, make: Callable[[int], GluePair]) -> GluePair:
    """The pair of that number, from its file in the folder if it is there, or made and kept."""
    stored = folder / f"pair-{index:06d}.npz"
    if not stored.exists():
        made = make(index)
        arrays = {
            f"{name}{side}": value.numpy()
            for side in (0, 1)
            for name, value in (
                ("descriptors", made.points[side].descriptors.half()),
                ("told", made.points[side].told),
                ("partners", made.partners[side].short()),
            )
        }
        part = folder / f"{stored.stem}-{os.getpid()}.part.npz"
        np.savez(part, eye=np.array(made.eye), **arrays)  # type: ignore[arg-type]
        part.replace(stored)
    with np.load(stored, allow_pickle=False) as kept:
        tensors = {name: torch.from_numpy(kept[name]) for name in kept.files}
    points = [
        Points(tensors[f"descriptors{side}"].float(), tensors[f"told{side}"]) for side in (0, 1)
    ]
    partners = [tensors[f"partners{side}"].long() for side in (0, 1)]
    return GluePair((points[0], points[1]), (partners[0], partners[1]), int(tensors["eye"]))
