"""The linear map between two retinal pictures, found by features or else by exhaustive search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from retreg_server.registration.fundus.affine_quadratic import refined_affine
from retreg_server.registration.fundus.features import (
    Matches,
    RobustFit,
    is_plausible,
    matched_both_ways,
    robust_affine,
)
from retreg_server.registration.fundus.pixel_maps import linear_map
from retreg_server.registration.fundus.prepared_picture import Side, vessel_side
from retreg_server.registration.fundus.rotation_scale_search import (
    Hypothesis,
    chance_score,
    searched,
)
from retreg_server.registration.fundus.vessel_pyramid import Agreement, agreement, alikeness
from retreg_server.registration.keymorph.initial_maps import Suggest
from retreg_server.registration.preprocessing.retina_picture import Picture, pixel_matrix

RATIO = 0.92
TOLERANCE = 6.0  # pixels at working size
STRONG_COUNT = 18  # inliers; two different eyes reach about 8
STRONG_RATIO = 0.08
TRUSTED_SCORE = 22.0  # of the vessels; two different eyes reach about 15
CANDIDATES = 3  # hypotheses of the search that are refined
CLEAR_LEAD = 1.5  # of the best score over the next that ends the search


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


def global_fit(
    fixed: Picture,
    moving: Picture,
    tick: Callable[[float], None],
    suggest: Suggest,
) -> GlobalFit:
    """Register two pictures linearly; tick is called with the fraction that is done.

    suggest is asked for further candidates; it is in doubt when neither features nor search
    settle the map. Of all candidates the one that aligns the vessels best wins.

    When only one of the geometries is left-handed, the pixels may show the eye mirrored or not:
    both are tried. Raises RegistrationError when a picture shows no vessels.
    """
    fixed_side, moving_side = vessel_side(fixed, "fixed"), vessel_side(moving, "moving")
    found = _registered(fixed_side, moving_side, tick, suggest)
    if fixed.is_mirrored != moving.is_mirrored:
        other = _registered(fixed_side, vessel_side(moving.mirrored, "moving"), tick, suggest)
        found = max(found, other, key=lambda fit: fit.score)
    return found


def _registered(
    fixed: Side, moving: Side, tick: Callable[[float], None], suggest: Suggest
) -> GlobalFit:
    tick(0.2)
    matched = _matched(fixed, moving)
    tick(0.5)
    if all(fit is not None and _is_strong(fit) for fit in matched.fits):
        found = _completed(fixed, moving, matched, _suggested(suggest, False, fixed, moving), 0.0)
        if found.score >= TRUSTED_SCORE:
            return found
    return _from_search(fixed, moving, matched, tick, suggest)


@dataclass(frozen=True, eq=False)
class _Matched:
    """Matches in both directions, and the affine that each of them supports."""

    matches: tuple[Matches, Matches]
    fits: tuple[RobustFit | None, RobustFit | None]


def _matched(fixed: Side, moving: Side) -> _Matched:
    forward, backward = matched_both_ways(fixed.features, moving.features, RATIO)
    fits = robust_affine(forward, TOLERANCE, 1), robust_affine(backward, TOLERANCE, 2)
    return _Matched((forward, backward), fits)


def _is_strong(fit: RobustFit) -> bool:
    return fit.count >= STRONG_COUNT and fit.count >= STRONG_RATIO * len(fit.inliers)


def _from_search(
    fixed: Side,
    moving: Side,
    matched: _Matched,
    tick: Callable[[float], None],
    suggest: Suggest,
) -> GlobalFit:
    """Search with the stronger ridges, and with the others as long as no winner stands out."""
    pairs = (
        (fixed, moving),
        (fixed, replace(moving, polarity=1)),
        (replace(fixed, polarity=1), moving),
    )
    best, lead, hypotheses = pairs[0], 0.0, list[Hypothesis]()
    for number, pair in enumerate(pairs):
        found = searched(pair[0].small, pair[1].small, _part(tick, number), CANDIDATES)
        if _lead(found) > lead:
            best, lead, hypotheses = pair, _lead(found), found
        if lead > CLEAR_LEAD:
            break
    fixed, moving = best
    opposite = searched(moving.small, fixed.small, _part(tick, len(pairs)), CANDIDATES)
    if best is not pairs[0]:
        matched = _matched(fixed, moving)
    ahead, back = _suggested(suggest, lead <= CLEAR_LEAD, fixed, moving)
    starts = (
        [start.moving_from_fixed for start in hypotheses] + ahead,
        [start.moving_from_fixed for start in opposite] + back,
    )
    return _completed(fixed, moving, matched, starts, lead)


def _suggested(
    suggest: Suggest, in_doubt: bool, fixed: Side, moving: Side
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Further candidates (3, 3) there and back, in pixels."""
    ahead, back = suggest(in_doubt)
    return (
        [pixel_matrix(world, fixed.picture, moving.picture) for world in ahead],
        [pixel_matrix(world, moving.picture, fixed.picture) for world in back],
    )


def _part(tick: Callable[[float], None], number: int) -> Callable[[float], None]:
    """The ticks of one search among several."""
    return lambda done: tick(0.5 + 0.12 * (number + done))


def _lead(found: list[Hypothesis]) -> float:
    return found[0].score / max(found[1].score, 1e-6) if len(found) > 1 else 1.0


def _completed(
    fixed: Side,
    moving: Side,
    matched: _Matched,
    starts: tuple[list[np.ndarray], list[np.ndarray]],
    lead: float,
) -> GlobalFit:
    for found, fit in zip(starts, matched.fits, strict=True):
        found += [fit.moving_from_fixed] if fit is not None else []
    forward = _best_refined(starts[0], fixed, moving, matched.matches[0])
    backward = _best_refined(starts[1], moving, fixed, matched.matches[1])
    score = chance_score(forward.moving_from_fixed, fixed.small, moving.small)
    return GlobalFit(fixed, moving, forward, backward, score, lead)


def _best_refined(
    starts: list[np.ndarray], fixed: Side, moving: Side, matches: Matches
) -> LinearFit:
    """The start that aligns the vessels best once it is made sub-pixel, or as it is."""
    refined = [refined_affine(start, fixed.levels, moving.levels) for start in starts]
    candidates = [matrix for matrix in starts + refined if is_plausible(matrix)]

    def likeness(matrix: np.ndarray) -> float:
        return alikeness(fixed.levels[1], moving.levels[1], linear_map(matrix))

    return _judged(max(candidates, key=likeness), fixed, moving, matches)


def _judged(matrix: np.ndarray, fixed: Side, moving: Side, matches: Matches) -> LinearFit:
    mapped = linear_map(matrix)
    distances = np.linalg.norm(mapped(matches.fixed) - matches.moving, axis=1)
    agreed = agreement(fixed.levels[1], moving.levels[1], mapped)
    return LinearFit(matrix, matches, distances < TOLERANCE, agreed)
