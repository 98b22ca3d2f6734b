"""The linear map between two retinal pictures, found by features or else by exhaustive search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from retreg_server.registration.fundus_matching import (
    Features,
    Matches,
    RobustFit,
    is_plausible,
    matched_both_ways,
    robust_affine,
    sift_features,
)
from retreg_server.registration.fundus_pictures import Picture
from retreg_server.registration.masked_search import (
    SmallMap,
    chance_score,
    searched,
    small_map,
)
from retreg_server.registration.parametric_refinement import Level, pyramid, refined_affine
from retreg_server.registration.vessel_agreement import Agreement, agreement
from retreg_server.registration.vesselness import VesselMaps, vessel_maps

MOST_FEATURES = 1200
CONTRAST = 0.02
RATIO = 0.92
TOLERANCE = 6.0  # pixels at working size
STRONG_COUNT = 30
STRONG_RATIO = 0.15
CANDIDATES = 3  # hypotheses of the search that are refined
CLEAR_LEAD = 1.5  # of the best score over the next that ends the search
FACTORS = (4, 2, 1)


@dataclass(frozen=True, eq=False)
class Side:
    """One picture with all that is computed from it once."""

    picture: Picture
    maps: VesselMaps
    polarity: int = 0  # 0: the map of the stronger ridges, 1: the other one

    @property
    def vessels(self) -> np.ndarray:
        return self.maps.strongest_first[self.polarity]

    @cached_property
    def features(self) -> Features:
        return sift_features(self.vessels, self.maps.valid, MOST_FEATURES, CONTRAST)

    @cached_property
    def levels(self) -> list[Level]:
        return pyramid(self.vessels, self.maps.valid, FACTORS)

    @cached_property
    def small(self) -> SmallMap:
        return small_map(self.vessels, self.maps.valid)


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A refined linear map (3, 3), the matches of its direction, and what speaks for it."""

    moving_from_fixed: np.ndarray
    matches: Matches
    inliers: np.ndarray
    agreement: Agreement


@dataclass(frozen=True, eq=False)
class GlobalFit:
    """The map in both directions, each found on its own, and how the search saw it.

    lead: the score of the best hypothesis of the search over the next best; 0 without a search.
    """

    fixed: Side
    moving: Side
    forward: LinearFit
    backward: LinearFit
    score: float
    lead: float

    @property
    def searched(self) -> bool:
        return self.lead > 0


def global_fit(fixed: Picture, moving: Picture, tick: Callable[[float], None]) -> GlobalFit:
    """Register two pictures linearly; tick is called with the fraction that is done."""
    sides = tuple(Side(x, vessel_maps(x.grey, x.inside)) for x in (fixed, moving))
    tick(0.2)
    matches = matched_both_ways(sides[0].features, sides[1].features, RATIO)
    tick(0.5)
    fits = tuple(robust_affine(m, TOLERANCE, seed) for seed, m in enumerate(matches, 1))
    if fits[0] and fits[1] and _is_strong(fits[0]) and _is_strong(fits[1]):
        forward = _refined(fits[0].moving_from_fixed, sides[0], sides[1], matches[0])
        backward = _refined(fits[1].moving_from_fixed, sides[1], sides[0], matches[1])
        return _complete(sides[0], sides[1], forward, backward, 0.0)
    return _from_search(sides[0], sides[1], fits, tick)


def _is_strong(fit: RobustFit) -> bool:
    return fit.count >= STRONG_COUNT and fit.count >= STRONG_RATIO * len(fit.inliers)


def _from_search(
    fixed: Side,
    moving: Side,
    fits: tuple[RobustFit | None, ...],
    tick: Callable[[float], None],
) -> GlobalFit:
    """Search with the stronger ridges, and with the others as long as no winner stands out."""
    best_lead = 0.0
    best = fixed, moving
    hypotheses = []
    for number, polarities in enumerate(((0, 0), (0, 1), (1, 0))):
        pair = replace(fixed, polarity=polarities[0]), replace(moving, polarity=polarities[1])

        def part(done: float, start: float = 0.5 + 0.1 * number) -> None:
            tick(start + 0.1 * done)

        found = searched(pair[0].small, pair[1].small, part, CANDIDATES)
        lead = found[0].score / max(found[1].score, 1e-6) if len(found) > 1 else 1.0
        if lead > best_lead:
            best_lead, best, hypotheses = lead, pair, found
        if lead > CLEAR_LEAD:
            break
    fixed, moving = best
    opposite = searched(moving.small, fixed.small, lambda done: tick(0.8 + 0.1 * done), CANDIDATES)
    matches = matched_both_ways(fixed.features, moving.features, RATIO)
    starts = [
        [hypothesis.moving_from_fixed for hypothesis in found]
        + [fit.moving_from_fixed for fit in (fit,) if fit is not None]
        for found, fit in zip((hypotheses, opposite), fits, strict=True)
    ]
    forward = _best_refined(starts[0], fixed, moving, matches[0])
    backward = _best_refined(starts[1], moving, fixed, matches[1])
    return _complete(fixed, moving, forward, backward, best_lead)


def _best_refined(
    starts: list[np.ndarray], fixed: Side, moving: Side, matches: Matches
) -> LinearFit:
    fits = [_refined(start, fixed, moving, matches) for start in starts]
    return max(fits, key=lambda fit: fit.agreement.correlation * fit.agreement.overlap**0.5)


def _refined(start: np.ndarray, fixed: Side, moving: Side, matches: Matches) -> LinearFit:
    """The start, made sub-pixel, unless that leads astray."""
    refined = refined_affine(start, fixed.levels, moving.levels)
    fits = [
        _judged(matrix, fixed, moving, matches)
        for matrix in (start, refined)
        if is_plausible(matrix)
    ]
    if not fits:
        return _judged(start, fixed, moving, matches)
    return max(fits, key=lambda fit: fit.agreement.correlation * fit.agreement.overlap**0.5)


def _judged(matrix: np.ndarray, fixed: Side, moving: Side, matches: Matches) -> LinearFit:
    linear, shift = matrix[:2, :2].T, matrix[:2, 2]

    def mapped(points: np.ndarray) -> np.ndarray:
        result: np.ndarray = points @ linear + shift
        return result

    distances = np.linalg.norm(mapped(matches.fixed) - matches.moving, axis=1)
    agreed = agreement(fixed.levels[1], moving.levels[1], mapped)
    return LinearFit(matrix, matches, distances < TOLERANCE, agreed)


def _complete(
    fixed: Side, moving: Side, forward: LinearFit, backward: LinearFit, lead: float
) -> GlobalFit:
    score = chance_score(forward.moving_from_fixed, fixed.small, moving.small)
    return GlobalFit(fixed, moving, forward, backward, score, lead)
