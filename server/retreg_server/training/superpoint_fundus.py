"""The recipe of superpoint-fundus: points of the vessels of a retina, and descriptors of them.

Two views of one eye show its corners at known places. The detector learns to name their pixels, the
descriptors to tell each of them from all others of both eyes of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from retreg_server.registration.networks.point_extraction import (
    CELL,
    descriptors_at,
    point_map,
    strongest_points,
)
from retreg_server.registration.networks.superpoint_net import (
    PointArchitecture,
    SuperPointNet,
    sampled,
)
from retreg_server.training.export import Bundle
from retreg_server.training.eyes import clutter_textures, real_retinas
from retreg_server.training.layered_eyes import LayeredEye, made_up_eyes, real_eyes
from retreg_server.training.matching_views import MatchingPair, drawn, matching_pair
from retreg_server.training.recipe import Recipe, TrainingOrder

PIXELS = 256  # of a view
FIELD_PIXELS = 384  # across the field of view when the network is used
ANGLE, FIRST_ANGLE, RAMP = 50.0, 15.0, 0.15  # degrees between two views; share of the training
MADE_UP, UNSEEN_MADE_UP = 80, 12
UNSEEN_REAL = ("HRF_05", "CHASE_10")  # kept back for validation
MADE_UP_SHARE = 0.5
POINTS = 300  # of a view that take part in a step
VALIDATION_VIEWS, VALIDATION_SEED = 2, 20_000_003
NEAR = 4.0  # pixels within which a match is right
ARCHITECTURE = PointArchitecture()


class SuperPointTask:
    """Samples, loss and validation for the loop; see training.loop.Task."""

    def __init__(
        self,
        eyes: Sequence[LayeredEye],
        unseen: Sequence[LayeredEye],
        textures: Sequence[torch.Tensor] = (),
        device: str = "cpu",
    ) -> None:
        self.architecture = ARCHITECTURE
        self._textures = [each.to(device) for each in textures]
        moved = [each.on(device) for each in eyes]
        self._groups = [
            group
            for is_made_up in (True, False)
            if (group := [each for each in moved if each.is_made_up == is_made_up])
        ]
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        self._validation = [
            matching_pair(eye, PIXELS, ANGLE, generator, textures)
            for eye in unseen
            for _ in range(VALIDATION_VIEWS)
        ]

    def loss(
        self, net: SuperPointNet, batch: int, progress: float, generator: torch.Generator
    ) -> torch.Tensor:
        """Detector and descriptors on batch pairs of views."""
        angle = FIRST_ANGLE + (ANGLE - FIRST_ANGLE) * min(1.0, progress / RAMP)
        pairs = [
            matching_pair(self._drawn(generator), PIXELS, angle, generator, self._textures)
            for _ in range(batch)
        ]
        cells, described = net(torch.cat([view.image for pair in pairs for view in pair.views]))
        labels = torch.stack(
            [cell_labels(pair.points[side], pair.seen[side]) for pair in pairs for side in (0, 1)]
        )
        detection = functional.cross_entropy(cells, labels)
        return detection + description_loss(described, pairs, net.sharpness, generator)

    @torch.no_grad()
    def validation(self, net: SuperPointNet) -> dict[str, float]:
        """Shares in per cent on unseen eyes; "error" is what the matching score lacks of 100."""
        net.eval()
        device = next(net.parameters()).device
        rows = []
        for pair in self._validation:
            picture = torch.cat([view.image for view in pair.views]).to(device)
            cells, described = (each.cpu().numpy() for each in net(picture))
            rows.append(_scores(pair, cells, described))
        net.train()
        repeated, matched, right, named = np.nanmean(np.array(rows), axis=0)
        return {
            "error": 100 * (1 - float(matched)),
            "repeatability": 100 * float(repeated),
            "precision": 100 * float(right),
            "nearest_right": 100 * float(named),
        }

    def _drawn(self, generator: torch.Generator) -> LayeredEye:
        share = float(torch.rand((), generator=generator, device=generator.device))
        group = self._groups[0] if share < MADE_UP_SHARE else self._groups[-1]
        return group[drawn(len(group), generator)]


def cell_labels(points: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Which pixel of each cell (rows, columns) is a point: 0 to 63, or 64 for none.

    points: (k, 2) normalised, strongest first: the stronger of two in one cell is kept.
    """
    side = PIXELS // CELL
    pixels = ((points[seen] + 1) * (PIXELS / 2)).long().clamp(0, PIXELS - 1)
    cells, places = pixels // CELL, pixels % CELL
    labels = torch.full((side * side,), CELL**2, device=points.device)
    index = cells[:, 1] * side + cells[:, 0]
    first = torch.full((side * side,), len(index), device=points.device)
    ranks = torch.arange(len(index), device=points.device)
    first = first.scatter_reduce(0, index, ranks, "amin")
    taken = first < len(index)
    values = places[:, 1] * CELL + places[:, 0]
    labels[taken] = values[first[taken]]
    return labels.reshape(side, side)


def description_loss(
    described: torch.Tensor,
    pairs: Sequence[MatchingPair],
    sharpness: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Negative log likelihood of the true partners under softmaxes of both directions.

    described: (2 n, d, h, w), the views of n pairs in turn. Points that the other view does not
    show, and all points of other pairs, are what a point is to be told from.
    """
    found, chosen = [], []
    for index, pair in enumerate(pairs):
        some = torch.nonzero(pair.seen.any(dim=0))[:, 0]
        order = torch.randperm(len(some), generator=generator, device=generator.device)
        some = some[order[:POINTS]]
        chosen.append(pair.seen[:, some])
        found.append([
            sampled(described[2 * index + side][None], pair.points[side, some]) for side in (0, 1)
        ])  # fmt: skip
    terms = []
    for side in (0, 1):
        others = torch.cat([each[1 - side] for each in found])
        shown = torch.cat([each[1 - side] for each in chosen])
        first = 0
        for own, seen in zip(found, chosen, strict=True):
            both = torch.nonzero(seen.all(dim=0))[:, 0]
            logits = sharpness.exp() * own[side][both] @ others.T
            logits = logits.masked_fill(~shown, -1e4)
            terms.append(functional.cross_entropy(logits, both + first, reduction="sum"))
            first += len(seen[0])
    count = sum(int(seen.all(dim=0).sum()) for seen in chosen)
    return torch.stack(terms).sum() / max(2 * count, 1)


def _scores(
    pair: MatchingPair, cells: np.ndarray, described: np.ndarray
) -> tuple[float, float, float, float]:
    """Repeatability, matching score, precision of mutual matches, and nearest at true points."""
    points, names = [], []
    for side, view in enumerate(pair.views):
        valid = view.shown[0, 0].cpu().numpy()
        points.append(strongest_points(point_map(cells[side]), valid, POINTS, 0.0)[0])
        names.append(descriptors_at(described[side], points[side]))
    first, second = pair.views
    there = _pixels(second.warp.image_of(first.warp.anatomy_of(_normalised(points[0]))))
    inside = second.visible(_normalised(there)).numpy() > 0
    apart = np.linalg.norm(there[:, None] - points[1][None], axis=2)
    likeness = names[0] @ names[1].T
    best, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
    mutual = back[best] == np.arange(len(best))
    right = mutual & (apart[np.arange(len(best)), best] < NEAR)
    both = pair.seen.all(dim=0)
    true = [descriptors_at(described[side], _pixels(pair.points[side, both])) for side in (0, 1)]
    nearest = (true[0] @ true[1].T).argmax(axis=1) == np.arange(int(both.sum()))
    return (
        float((apart.min(axis=1) < NEAR)[inside].mean()) if inside.any() else float("nan"),
        float(right[inside].mean()) if inside.any() else float("nan"),
        float(right[mutual].mean()) if mutual.any() else float("nan"),
        float(nearest.mean()) if len(nearest) else float("nan"),
    )


def _normalised(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((2 * pixels + 1) / PIXELS - 1).float()


def _pixels(normalised: torch.Tensor) -> np.ndarray:
    found: np.ndarray = ((normalised.numpy() + 1) * PIXELS - 1) / 2
    return found


def superpoint_task(order: TrainingOrder) -> SuperPointTask:
    """The task from a folder of vessel masks and made-up eyes, which are kept in the run's folder.

    Raises FileError for a folder without masks.
    """
    retinas = real_retinas(order.folder)
    order.out.mkdir(parents=True, exist_ok=True)
    made = made_up_eyes(order.out / "eyes.npz", 1000 * order.seed, MADE_UP + UNSEEN_MADE_UP)
    seen = [each for each in retinas if not each.name.startswith(UNSEEN_REAL)]
    unseen = [each for each in retinas if each.name.startswith(UNSEEN_REAL)]
    return SuperPointTask(
        made[:MADE_UP] + real_eyes(seen),
        made[MADE_UP:] + real_eyes(unseen),
        clutter_textures(seen),
        order.device,
    )


def superpoint_bundle(_order: TrainingOrder, recipe: dict[str, Any], hardware: str) -> Bundle:
    """What the card of superpoint-fundus says."""
    return Bundle(
        name="superpoint-fundus",
        title="Points of the vessels of a retina and descriptors to match them by",
        architecture=ARCHITECTURE,
        pixels=FIELD_PIXELS,
        spacing_mm=None,
        input_rule="vessel strength (preprocessing/vesselness.py) of the field of view at 768 "
        "pixels, in the corner of a square of 384 pixels; the 1st to 99.5th percentile of every "
        "fifth pixel becomes 0 to 1, cut off there (trained on views of 256 pixels)",
        error_unit="per cent; error: of points without a right match within 4 pixels; precision: "
        "of mutual matches; nearest_right: of true points known by their descriptor",
        recipe={name: value for name, value in recipe.items() if name != "keypoints"},
        trained_on=(
            f"{MADE_UP} made-up eyes, each in colour or red-free light and as an angiogram; "
            f"{UNSEEN_MADE_UP} more were kept back for validation",
            "vessel masks of HRF (15, Budai et al. 2013) and masks and pictures of CHASE_DB1 (20, "
            "Owen et al. 2009), CC BY 4.0 by their owners' statement; "
            f"{' and '.join(UNSEEN_REAL)} were kept back for validation",
        ),
        hardware=hardware,
    )


RECIPE = Recipe(superpoint_task, superpoint_bundle)
