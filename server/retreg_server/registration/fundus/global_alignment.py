"""The linear map between two retinal pictures, found by features or else by exhaustive search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from retreg.errors import RegistrationError
from retreg_server.registration.fundus.affine_quadratic import refined_affine
from retreg_server.registration.fundus.features import (
    Matches,
    Method,
    RobustFit,
    is_plausible,
    ransac_affine,
)
from retreg_server.registration.fundus.learned_features import best_methods
from retreg_server.registration.fundus.pixel_maps import linear_map
from retreg_server.registration.fundus.prepared_picture import PreparedPicture, prepared_picture
from retreg_server.registration.fundus.rotation_scale_search import (
    Hypothesis,
    chance_score,
    searched,
)
from retreg_server.registration.fundus.vessel_pyramid import Agreement, agreement, vessel_similarity
from retreg_server.registration.fundus.world_transforms import pixel_matrix
from retreg_server.registration.keymorph.initial_maps import Suggest
from retreg_server.registration.model import Stages
from retreg_server.registration.preprocessing.retina_picture import Picture

TOLERANCE = 6.0  # pixels at working size
TRUSTED_SCORE = 22.0  # of the vessels; two different eyes reach about 15
PLAUSIBLE_SCORE, PLAUSIBLE_DEVIATIONS = 15.0, 6.0
CERTAIN_COUNT = 30  # inliers; two different eyes reach 14
CANDIDATES = 3  # hypotheses of the search that are refined
REACH = 0.15  # of the longer side: how far from a given map its matches may lie
SEARCH_SHARE = 0.14  # of the work that one search is
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

    fixed: PreparedPicture
    moving: PreparedPicture
    forward: LinearFit
    backward: LinearFit
    score: float
    lead: float

    @property
    def searched(self) -> bool:
        return self.lead > 0


def global_alignment(
    fixed: Picture,
    moving: Picture,
    stages: Stages,
    suggest: Suggest,
    methods: Sequence[Method] | None = None,
) -> GlobalFit:
    """Register two pictures linearly; stages hears of the progress in the current part.

    suggest is asked for further candidates; it is in doubt when neither features nor search
    settle the map. Of all candidates the one that aligns the vessels best wins. methods: how
    features are found and matched, each asked where those before it do not settle the map; learned
    ones, then SIFT.

    When only one of the geometries is left-handed, the pixels may show the eye mirrored or not:
    both are tried. Raises RegistrationError when a picture shows no vessels.
    """
    stages.at(0.0)
    asked = best_methods() if methods is None else methods
    prepared = prepared_picture(fixed, "fixed")
    views = [moving] if fixed.is_mirrored == moving.is_mirrored else [moving, moving.mirrored]
    found = []
    for view in views:
        with stages.part(1 / len(views)):
            shown = prepared_picture(view, "moving")
            found.append(_registered(prepared, shown, stages, suggest, asked))
    return max(found, key=lambda fit: fit.score)


def _registered(
    fixed: PreparedPicture,
    moving: PreparedPicture,
    stages: Stages,
    suggest: Suggest,
    methods: Sequence[Method],
) -> GlobalFit:
    pairs = _by_polarity(fixed, moving)
    for number, method in enumerate(methods):
        stages.at(0.2 + 0.2 * number / len(methods))
        for pair in pairs[: method.polarities]:
            matched = _matched(*pair, method)
            if all(method.is_strong(fit) for fit in matched.fits):
                starts = _suggested(suggest, False, *pair)
                found = _completed(*pair, [matched], starts, 0.0)
                if found.score >= TRUSTED_SCORE or (matched.is_certain and _is_plausible(found)):
                    return found
    stages.skip(0.4)
    return _from_search(pairs, stages, suggest, methods)


def _is_plausible(found: GlobalFit) -> bool:
    """Whether vessels meet clearly enough to believe a map that many features agree on."""
    deviations = min(fit.agreement.deviations for fit in (found.forward, found.backward))
    return found.score >= PLAUSIBLE_SCORE and deviations >= PLAUSIBLE_DEVIATIONS


def _by_polarity(
    fixed: PreparedPicture, moving: PreparedPicture
) -> tuple[tuple[PreparedPicture, PreparedPicture], ...]:
    """The pair with the stronger ridges of both pictures, then with the others of one."""
    return (
        (fixed, moving),
        (fixed, replace(moving, polarity=1)),
        (replace(fixed, polarity=1), moving),
    )


@dataclass(frozen=True, eq=False)
class _Matched:
    """Matches in both directions, and the affine that each of them supports."""

    matches: tuple[Matches, Matches]
    fits: tuple[RobustFit | None, RobustFit | None]

    @property
    def is_certain(self) -> bool:
        """Whether so many agree in both directions that vessels that are faint may do."""
        return all(fit is not None and fit.count >= CERTAIN_COUNT for fit in self.fits)


def _matched(fixed: PreparedPicture, moving: PreparedPicture, method: Method) -> _Matched:
    forward, backward = method.match(fixed.features(method), moving.features(method))
    fits = ransac_affine(forward, TOLERANCE, 1), ransac_affine(backward, TOLERANCE, 2)
    return _Matched((forward, backward), fits)


def _from_search(
    pairs: Sequence[tuple[PreparedPicture, PreparedPicture]],
    stages: Stages,
    suggest: Suggest,
    methods: Sequence[Method],
) -> GlobalFit:
    """Search with the stronger ridges, and with the others as long as no winner stands out."""
    best, lead, hypotheses = pairs[0], 0.0, list[Hypothesis]()
    for pair in pairs:
        with stages.part(SEARCH_SHARE):
            found = searched(pair[0].small, pair[1].small, stages, CANDIDATES)
        if _lead(found) > lead:
            best, lead, hypotheses = pair, _lead(found), found
        if lead > CLEAR_LEAD:
            break
    fixed, moving = best
    with stages.part(SEARCH_SHARE):
        opposite = searched(moving.small, fixed.small, stages, CANDIDATES)
    matched = [_matched(fixed, moving, method) for method in methods]
    forward, backward = _suggested(suggest, lead <= CLEAR_LEAD, fixed, moving)
    starts = (
        [start.moving_from_fixed for start in hypotheses] + forward,
        [start.moving_from_fixed for start in opposite] + backward,
    )
    return _completed(fixed, moving, matched, starts, lead)


def _suggested(
    suggest: Suggest, in_doubt: bool, fixed: PreparedPicture, moving: PreparedPicture
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Further candidates (3, 3) forward and backward, in pixels."""
    forward, backward = suggest(in_doubt)
    return (
        [pixel_matrix(world, fixed.picture, moving.picture) for world in forward],
        [pixel_matrix(world, moving.picture, fixed.picture) for world in backward],
    )


def _lead(found: list[Hypothesis]) -> float:
    return found[0].score / max(found[1].score, 1e-6) if len(found) > 1 else 1.0


def _completed(
    fixed: PreparedPicture,
    moving: PreparedPicture,
    matched: Sequence[_Matched],
    starts: tuple[list[np.ndarray], list[np.ndarray]],
    lead: float,
) -> GlobalFit:
    for each in matched:
        for found, fit in zip(starts, each.fits, strict=True):
            found += [fit.moving_from_fixed] if fit is not None else []
    forward = _best_refined(starts[0], fixed, moving, [each.matches[0] for each in matched])
    backward = _best_refined(starts[1], moving, fixed, [each.matches[1] for each in matched])
    score = chance_score(forward.moving_from_fixed, fixed.small, moving.small)
    return GlobalFit(fixed, moving, forward, backward, score, lead)


def _best_refined(
    starts: list[np.ndarray],
    fixed: PreparedPicture,
    moving: PreparedPicture,
    matches: Sequence[Matches],
) -> LinearFit:
    """The start that aligns the vessels best once it is made sub-pixel, or as it is, with those of
    the matches that most agree with it."""
    refined = [refined_affine(start, fixed.levels, moving.levels) for start in starts]
    candidates = [matrix for matrix in starts + refined if is_plausible(matrix)]

    def similarity(matrix: np.ndarray) -> float:
        return vessel_similarity(fixed.levels[1], moving.levels[1], linear_map(matrix))

    return _judged(max(candidates, key=similarity), fixed, moving, matches)


def _judged(
    matrix: np.ndarray,
    fixed: PreparedPicture,
    moving: PreparedPicture,
    matches: Sequence[Matches],
) -> LinearFit:
    mapped = linear_map(matrix)
    supports = [
        np.linalg.norm(mapped(each.fixed) - each.moving, axis=1) < TOLERANCE for each in matches
    ]
    best = max(range(len(matches)), key=lambda n: int(supports[n].sum()))
    agreed = agreement(fixed.levels[1], moving.levels[1], mapped)
    return LinearFit(matrix, matches[best], supports[best], agreed)


def alignment_near(
    fixed: Picture,
    moving: Picture,
    stages: Stages,
    initial: np.ndarray,
    methods: Sequence[Method] | None = None,
) -> GlobalFit:
    """As global_alignment, from starts near the map initial (4, 4) of the world and its inverse:
    these themselves, and what the features within REACH of them agree on.

    Raises RegistrationError when no camera can have made initial, or a picture shows no vessels.
    """
    stages.at(0.0)
    views = [moving] if fixed.is_mirrored == moving.is_mirrored else [moving, moving.mirrored]
    view = next((v for v in views if is_plausible(pixel_matrix(initial, fixed, v))), None)
    if view is None:
        raise RegistrationError(
            "No two pictures of one eye lie as the initial transform says: it mirrors, stretches "
            "or scales too much; give another one, or none."
        )
    there = pixel_matrix(initial, fixed, view)
    back = np.linalg.inv(there)
    pairs = _by_polarity(prepared_picture(fixed, "fixed"), prepared_picture(view, "moving"))
    asked, found = best_methods() if methods is None else methods, list[GlobalFit]()
    for number, pair in enumerate(pairs):
        stages.at(0.2 + 0.8 * number / len(pairs))
        near = [_matched_near(*pair, method, (there, back)) for method in asked]
        found.append(_completed(*pair, near, ([there], [back]), 0.0))
        if found[-1].score >= TRUSTED_SCORE:
            break
    return max(found, key=lambda fit: fit.score)


def _matched_near(
    fixed: PreparedPicture,
    moving: PreparedPicture,
    method: Method,
    maps: tuple[np.ndarray, np.ndarray],
) -> _Matched:
    """As _matched, of the matches within REACH of the maps (3, 3) there and back."""
    reach = REACH * max(fixed.picture.grey.shape)

    def near(matches: Matches, matrix: np.ndarray) -> Matches:
        missed = np.linalg.norm(linear_map(matrix)(matches.fixed) - matches.moving, axis=1)
        kept = missed < reach
        return Matches(matches.fixed[kept], matches.moving[kept], matches.distinctness[kept])

    both = method.match(fixed.features(method), moving.features(method))
    forward, backward = (near(*each) for each in zip(both, maps, strict=True))
    fits = ransac_affine(forward, TOLERANCE, 1), ransac_affine(backward, TOLERANCE, 2)
    return _Matched((forward, backward), fits)
