"""The recipe of superglue-fundus: who is whose partner among the points of two views of an eye.

The points and descriptors are those of superpoint-fundus, which does not change any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from retreg_server.registration.fundus.learned_features import MOST_POINTS, network
from retreg_server.registration.fundus.point_matching import LEAST_SHARE, PlacedFeatures, nearest
from retreg_server.registration.networks.superglue_net import (
    GlueArchitecture,
    SuperGlueNet,
    log_assignment,
)
from retreg_server.training.export import Bundle
from retreg_server.training.eyes import clutter_textures, real_retinas
from retreg_server.training.glue_pairs import ALONE, FIELD, GluePair, glue_pair, kept_pair
from retreg_server.training.layered_eyes import LayeredEye, made_up_eyes, real_eyes
from retreg_server.training.matching_views import drawn, matching_pair
from retreg_server.training.recipe import Recipe, TrainingOrder
from retreg_server.training.superpoint_fundus import MADE_UP_SHARE, UNSEEN_REAL

PIXELS = 384  # of a view: as much as the network for points is shown
ANGLE = 50.0  # degrees between two views
FIRST_EYE, MADE_UP, UNSEEN_MADE_UP = 500, 100, 12  # the network for points never saw these
PAIRS, VALIDATION_PAIRS, VALIDATION_SEED = 1250, 48, 20_000_003
FEWEST, MOST = 100, 260  # points of a view that take part in a step
STRANGERS = 0.1  # share of the samples that are of two different eyes
ARCHITECTURE = GlueArchitecture()


class SuperGlueTask:
    """Samples, loss and validation for the loop; see training.loop.Task.

    pairs: the pair of that number, below count. unseen: pairs for validation.
    """

    def __init__(
        self,
        pairs: Callable[[int], GluePair],
        count: int,
        unseen: Sequence[GluePair],
        device: str = "cpu",
    ) -> None:
        self.architecture = ARCHITECTURE
        self._pairs, self._count, self._unseen, self._device = pairs, count, unseen, device

    def loss(
        self, net: SuperGlueNet, batch: int, _progress: float, generator: torch.Generator
    ) -> torch.Tensor:
        """Mean over batch pairs, drawn anew."""
        pairs = [self._sample(generator) for _ in range(batch)]
        each = [assignment_loss(log_assignment(*net(*pair.points)), pair) for pair in pairs]
        return torch.stack(each).mean()

    def _sample(self, generator: torch.Generator) -> GluePair:
        pair = self._drawn(generator)
        if float(torch.rand((), generator=generator, device=generator.device)) < STRANGERS:
            other = self._drawn(generator)
            pair = pair.against(other) if other.eye != pair.eye else pair
        counts = [FEWEST + drawn(MOST - FEWEST, generator) for _ in range(2)]
        return pair.strongest((counts[0], counts[1])).moved(generator).on(self._device)

    def _drawn(self, generator: torch.Generator) -> GluePair:
        return self._pairs(drawn(self._count, generator))

    @torch.no_grad()
    def validation(self, net: SuperGlueNet) -> dict[str, float]:
        """In per cent on unseen eyes; "error" is what F1 of the matches lacks of 100, and what
        begins with nearest is the same of mutual nearest neighbours."""
        net.eval()
        rows, losses = [], []
        for pair in self._unseen:
            moved = pair.on(self._device)
            assigned = log_assignment(*net(*moved.points))
            losses.append(float(assignment_loss(assigned, moved)))
            found = assigned[:-1, :-1].exp().cpu().numpy()
            rows.append((*scores(pair, found, found), *scores(pair, *_nearest(pair))))
        net.train()
        values = 100 * np.nanmean(np.array(rows), axis=0)
        names = ("f1", "recall", "precision", "nearest_f1", "nearest_recall", "nearest_precision")
        measured = dict(zip(names, map(float, values), strict=True))
        return {"error": 100 - measured["f1"], **measured, "loss": float(np.mean(losses))}


def assignment_loss(found: torch.Tensor, pair: GluePair) -> torch.Tensor:
    """Negative log likelihood of the true partners and of being alone (Sarlin et al. 2020, eq. 10).

    found: (n + 1, m + 1), see log_assignment. Both count the same, however many there are of each;
    points that are UNSURE do not.
    """
    first, second = pair.partners
    matched = torch.nonzero(first >= 0)[:, 0]
    terms = [
        (0.5, found[matched, first[matched]]),
        (0.25, found[:-1, -1][first == ALONE]),
        (0.25, found[-1, :-1][second == ALONE]),
    ]
    weight = sum(share for share, values in terms if len(values))
    total = [share * values.mean() for share, values in terms if len(values)]
    return -torch.stack(total).sum() / max(weight, 1e-9)


def scores(
    pair: GluePair, to_second: np.ndarray, to_first: np.ndarray
) -> tuple[float, float, float]:
    """F1, recall and precision of mutual best pairs with a share (n, m) of LEAST_SHARE at least.

    Pairs with a point that is UNSURE are left out.
    """
    best, back = to_second.argmax(axis=1), to_first.argmax(axis=0)
    rows = np.arange(len(best))
    chosen = (back[best] == rows) & (to_second[rows, best] > LEAST_SHARE)
    first, second = (each.numpy() for each in pair.partners)
    right = int((chosen & (first == best)).sum())
    named = int((chosen & ((first >= ALONE) & (second[best] >= ALONE))).sum())
    true = int((first >= 0).sum())
    f1 = 2 * right / (named + true) if named + true else float("nan")
    return (
        f1,
        right / true if true else float("nan"),
        right / named if named else float("nan"),
    )


def _nearest(pair: GluePair) -> tuple[np.ndarray, np.ndarray]:
    sharpness = network().sharpness
    first, second = (
        PlacedFeatures(told.numpy(), descriptors.numpy(), told.numpy(), sharpness)
        for descriptors, told in pair.points
    )
    return nearest(first, second)


def superglue_task(order: TrainingOrder) -> SuperGlueTask:
    """The task from a folder of vessel masks and made-up eyes; they and all pairs are kept in the
    run's folder.

    Raises FileError for a folder without masks.
    """
    retinas = real_retinas(order.folder)
    order.out.mkdir(parents=True, exist_ok=True)
    first = FIRST_EYE + 1000 * order.seed
    made = made_up_eyes(order.out / "eyes.npz", first, MADE_UP + UNSEEN_MADE_UP)
    seen = [each for each in retinas if not each.name.startswith(UNSEEN_REAL)]
    unseen = [each for each in retinas if each.name.startswith(UNSEEN_REAL)]
    textures = clutter_textures(seen)
    groups = made[:MADE_UP], real_eyes(seen)
    pairs, kept_back = order.out / "pairs", order.out / "validation"
    for folder in (pairs, kept_back):
        folder.mkdir(exist_ok=True)
    make = partial(_made, [g for g in groups if g], textures, order.seed * 1_000_003)
    hidden = [g for g in (made[MADE_UP:], real_eyes(unseen)) if g]
    check = partial(_made, hidden, textures, VALIDATION_SEED)
    return SuperGlueTask(
        lambda index: kept_pair(pairs, index, make),
        PAIRS,
        [kept_pair(kept_back, index, check) for index in range(VALIDATION_PAIRS)],
        order.device,
    )


def _made(
    groups: Sequence[Sequence[LayeredEye]],
    textures: Sequence[torch.Tensor],
    seed: int,
    index: int,
) -> GluePair:
    """The pair of that number, which depends on nothing else but the seed."""
    generator = torch.Generator().manual_seed(seed + index)
    share = float(torch.rand((), generator=generator))
    group = 0 if share < MADE_UP_SHARE else len(groups) - 1
    number = drawn(len(groups[group]), generator)
    pair = matching_pair(groups[group][number], PIXELS, ANGLE, generator, textures)
    return glue_pair(pair, 1000 * group + number)


def superglue_bundle(_order: TrainingOrder, recipe: dict[str, Any], hardware: str) -> Bundle:
    """What the card of superglue-fundus says."""
    return Bundle(
        name="superglue-fundus",
        title="Who is whose partner among the points of two pictures of a retina",
        architecture=ARCHITECTURE,
        pixels=FIELD,
        spacing_mm=None,
        input_rule="points and descriptors of superpoint-fundus, with x and y from the middle of "
        f"the picture in halves of its longer side, and strength by rank among {MOST_POINTS}",
        error_unit="per cent, but the loss; error: what F1 of the matches lacks of 100; nearest_: "
        "the same of mutual nearest neighbours on the same pairs",
        recipe={name: value for name, value in recipe.items() if name != "keypoints"},
        trained_on=(
            f"{MADE_UP} made-up eyes that superpoint-fundus was not trained on, each in colour or "
            f"red-free light and as an angiogram; {UNSEEN_MADE_UP} more were kept back for "
            "validation",
            "vessel masks of HRF (15, Budai et al. 2013) and masks and pictures of CHASE_DB1 (20, "
            "Owen et al. 2009), CC BY 4.0 by their owners' statement; "
            f"{' and '.join(UNSEEN_REAL)} were kept back for validation",
        ),
        hardware=hardware,
    )


RECIPE = Recipe(superglue_task, superglue_bundle)
