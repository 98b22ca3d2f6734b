"""Who is whose partner among learned points of two pictures, and at which of four rotations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from retreg_server.registration.fundus.features import Features, Matches, ransac_affine
from retreg_server.registration.networks.superglue_arrays import SuperGlueArrays
from retreg_server.registration.networks.weights import is_shipped, load_arrays, load_metadata
from retreg_server.registration.numerics.sinkhorn import assignment

ATTENTION = "superglue-fundus"
LEAST_SHARE = 0.2  # of an assignment (Sarlin et al. 2020)
NO_PARTNER = 0.5  # the cosine that is as good as having no partner
TOLERANCE = 6.0  # pixels of the picture within which matches agree on a map
ENOUGH = 40  # matches that agree and end the looks
TURNS = (0, 1, 3, 2)


@dataclass(frozen=True, eq=False)
class PlacedFeatures(Features):
    """Features, strongest first, with what a network that matches them is told of each.

    told: (n, 3) float32, x and y from the middle of the picture in halves of its longer side, and
    how strong the point is, from 0 to 1. sharpness: what cosines of descriptors are multiplied by
    to be the logits of a match.
    """

    told: np.ndarray
    sharpness: float


@dataclass(frozen=True, eq=False)
class TurnedFeatures(PlacedFeatures):
    """Features of a picture as the network sees it upright.

    described: descriptors (n, d) of the same points in the picture after so many quarter turns.
    """

    described: Callable[[int], np.ndarray]

    def turned(self, turns: int) -> PlacedFeatures:
        """The points as they are seen after so many quarter turns (numpy.rot90)."""
        told = self.told
        for _ in range(turns):
            told = np.stack([told[:, 1], -told[:, 0], told[:, 2]], axis=1)
        return PlacedFeatures(self.points, self.described(turns), told, self.sharpness)


Shares = Callable[[PlacedFeatures, PlacedFeatures], tuple[np.ndarray, np.ndarray]]


def nearest(fixed: PlacedFeatures, moving: PlacedFeatures) -> tuple[np.ndarray, np.ndarray]:
    """How likely each moving point is the partner of a fixed one, and the other way (n, m)."""
    logits = fixed.sharpness * (fixed.descriptors @ moving.descriptors.T)
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    columns = np.exp(logits - logits.max(axis=0))
    return rows / rows.sum(axis=1, keepdims=True), columns / columns.sum(axis=0)


def optimal(fixed: PlacedFeatures, moving: PlacedFeatures) -> tuple[np.ndarray, np.ndarray]:
    """The same from one assignment of all points at once, with bins for those without partner."""
    logits = fixed.sharpness * (fixed.descriptors @ moving.descriptors.T)
    found = assignment(logits, fixed.sharpness * NO_PARTNER)[:-1, :-1]
    return found, found


def attention(fixed: PlacedFeatures, moving: PlacedFeatures) -> tuple[np.ndarray, np.ndarray]:
    """The same from scores of a network that looks at all points of both pictures."""
    net = attention_network()
    scores = net.scores((fixed.descriptors, fixed.told), (moving.descriptors, moving.told))
    found = assignment(scores, net.no_partner, rounds=ROUNDS)[:-1, :-1]
    return found, found


ROUNDS = 20  # as in training
MATCHERS: dict[str, Shares] = {
    "nearest": nearest, "sinkhorn": optimal, "attention": attention
}  # fmt: skip


def usable_matchers() -> tuple[str, ...]:
    """The names of MATCHERS that can be used here: attention needs its weights."""
    return tuple(name for name in MATCHERS if name != "attention" or is_shipped(ATTENTION))


@cache
def attention_network() -> SuperGlueArrays:
    """The network, read when it is first needed. Raises FileError when it cannot be used."""
    heads = int(load_metadata(ATTENTION).card["retreg"]["architecture"]["heads"])
    return SuperGlueArrays(load_arrays(ATTENTION), heads)


def matched_looks(
    fixed: Features, moving: Features, looks: int, shares: Shares
) -> tuple[Matches, Matches]:
    """The matches of the look of the moving picture in which most agree on one map.

    looks: how many quarter turns are tried. shares: of assignments to each fixed and to each moving
    point (n, m). See features.Method.
    """
    assert isinstance(fixed, PlacedFeatures)
    assert isinstance(moving, TurnedFeatures)
    best, most = None, -1
    for turns in TURNS[:looks]:
        found = _matched(fixed, moving.turned(turns), shares)
        fit = ransac_affine(found[0], TOLERANCE, 1)
        count = fit.count if fit else 0
        if best is None or count > most:
            best, most = found, count
        if most >= ENOUGH:
            break
    assert best is not None
    return best


def _matched(
    fixed: PlacedFeatures, moving: PlacedFeatures, shares: Shares
) -> tuple[Matches, Matches]:
    """Mutual best pairs whose share of the assignment is large enough, judged from either side."""
    if not (len(fixed) and len(moving)):
        nothing = Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
        return nothing, nothing
    to_moving, to_fixed = shares(fixed, moving)
    best, back = to_moving.argmax(axis=1), to_fixed.argmax(axis=0)
    mutual = np.flatnonzero(back[best] == np.arange(len(best)))

    def kept(every: np.ndarray) -> Matches:
        found = every[mutual, best[mutual]]
        good = found > LEAST_SHARE
        chosen = mutual[good]
        return Matches(fixed.points[chosen], moving.points[best[chosen]], found[good])

    return kept(to_moving), kept(to_fixed).swapped
