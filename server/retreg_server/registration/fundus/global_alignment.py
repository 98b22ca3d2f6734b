"""The linear map between two retinal pictures, found by features or else by exhaustive search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from retreg.errors import RegistrationError
from retreg_server.registration.fundus.affine_quadratic import refined_affine
from retreg_server.registration.fundus.common_scale import pairs_at_common_scales
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
    ALL_SCALES,
    USUAL_SCALES,
    Hypothesis,
    chance_score,
    scales_near,
    searched,
    small_maps,
)
from retreg_server.registration.fundus.vessel_pyramid import Agreement, agreement, vessel_similarity
from retreg_server.registration.fundus.world_transforms import pixel_matrix
from retreg_server.registration.keymorph.initial_maps import Suggest
from retreg_server.registration.model import Stages
from retreg_server.registration.preprocessing.retina_picture import Picture

TOLERANCE = 6.0  # pixels at working size
PLAUSIBLE_SCORE, PLAUSIBLE_DEVIATIONS = 10.0, 8.0  # where features put them, other eyes: 3 and 1
PARTS, FEWEST_OF_PART = 2, 9  # candidates that are refined, and the inliers that they need
MUCH_LESS, LITTLE = 1.4, 0.5  # of a field and of what both show, where features know better
PLAUSIBLE_PART = 5.0  # deviations; other eyes: 3
CANDIDATES = 3  # hypotheses of the search that are refined
REACH = 0.15  # of the longer side: how far from a given map its matches may lie
SEARCH_SHARE = 0.14  # of the work that one search is
CLEAR_LEAD = 1.5  # of the best score over the next that ends the search
_Pair = tuple[PreparedPicture, PreparedPicture]
_Starts = tuple[list[np.ndarray], list[np.ndarray]]  # candidates (3, 3) forward and backward


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

    @property
    def scale(self) -> float:
        """Moving over fixed field length per length, where either may have been shrunk."""
        zoom = max(self.fixed.vessels.shape) / max(self.moving.vessels.shape)  # 1 at equal scale
        return zoom * float(np.sqrt(abs(np.linalg.det(self.forward.moving_from_fixed[:2, :2]))))


def global_alignment(
    fixed: Picture,
    moving: Picture,
    stages: Stages,
    suggest: Suggest,
    methods: Sequence[Method] | None = None,
    are_marked: bool = False,
) -> GlobalFit:
    """Register two pictures linearly; stages hears of the progress in the current part.

    suggest is asked for further candidates; it is in doubt when neither features nor search
    settle the map. Of all candidates the one that aligns the vessels best wins. methods: how
    features are found and matched, each asked where those before it do not settle the map; learned
    ones, then SIFT. are_marked: whether annotations were painted over in both; what is left of them
    stands out in the weaker ridges, in which then is not searched.

    When only one of the geometries is left-handed, the pixels may show the eye mirrored or not:
    both are tried. Raises RegistrationError when a picture shows no vessels.
    """
    stages.at(0.0)
    asked = best_methods() if methods is None else methods
    prepared = prepared_picture(fixed, "fixed")
    views = moving.views_beside(fixed)
    found = []
    for view in views:
        with stages.part(1 / len(views)):
            shown = prepared_picture(view, "moving")
            pairs = _by_polarity(prepared, shown)
            searchable = pairs[:1] if are_marked else pairs
            found.append(_registered(pairs, searchable, stages, suggest, asked))
    return max(found, key=lambda fit: fit.score)


def _registered(
    pairs: Sequence[_Pair],
    searchable: Sequence[_Pair],
    stages: Stages,
    suggest: Suggest,
    methods: Sequence[Method],
) -> GlobalFit:
    @cache
    def matched_by(method: Method, pair: _Pair) -> _Matched:
        return _matched(*pair, method)

    for number, method in enumerate(methods):
        stages.at(0.2 + 0.2 * number / len(methods))
        for pair in pairs[: method.polarities]:
            matched = matched_by(method, pair)
            if all(method.is_strong(fit) for fit in matched.fits):
                starts = _suggested(suggest, False, *pair)
                found = _completed(*pair, [matched], starts, 0.0)
                if not _is_plausible(found):
                    found = _completed(*pair, [matched], _exchanged(found), 0.0)
                if _is_plausible(found):
                    return found
    ordinary = [(pairs[0], matched_by(method, pairs[0])) for method in methods]
    found_part = _found_part(ordinary, methods)
    if found_part is not None:
        return found_part
    stages.skip(0.4)
    pair, starts, lead = _from_search(searchable, stages, suggest)
    return _completed(*pair, [matched_by(method, pair) for method in methods], starts, lead)


def _found_part(
    ordinary: Sequence[tuple[_Pair, _Matched]], methods: Sequence[Method]
) -> GlobalFit | None:
    """The map on which few features agree, at equal scale or where one picture shows a part of
    the other one; None where the vessels do not meet."""
    matched = [
        (pair, _matched(*pair, method))
        for pair in pairs_at_common_scales(*ordinary[0][0])
        for method in methods
    ]
    for pair, each in sorted([*ordinary, *matched], key=lambda one: -one[1].most)[:PARTS]:
        if each.most >= FEWEST_OF_PART:
            found = _completed(*pair, [each], each.exchanged, 0.0)
            if _is_plausible(found, PLAUSIBLE_PART) and _shows_parts(found):
                return _completed(*pair, [each], _exchanged(found), 0.0)
    return None


def _shows_parts(found: GlobalFit) -> bool:
    """Whether the pictures share little, or one shows much less: the search is good at the rest."""
    overlap = max(found.forward.agreement.overlap, found.backward.agreement.overlap)
    return max(found.scale, 1 / found.scale) > MUCH_LESS or overlap < LITTLE


def _is_plausible(found: GlobalFit, least: float = PLAUSIBLE_DEVIATIONS) -> bool:
    """Whether vessels meet where many features agree on a map."""
    deviations = min(fit.agreement.deviations for fit in (found.forward, found.backward))
    return found.score >= PLAUSIBLE_SCORE and deviations >= least


def _exchanged(found: GlobalFit) -> _Starts:
    """For each direction the inverse of the other: so many features agree on either that both
    mean the same, and one of them may be closer."""
    forward, backward = (
        np.linalg.inv(fit.moving_from_fixed) for fit in (found.forward, found.backward)
    )
    return [backward], [forward]


def _by_polarity(fixed: PreparedPicture, moving: PreparedPicture) -> tuple[_Pair, ...]:
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
    def most(self) -> int:
        """Of the inliers of both directions."""
        return max(0 if fit is None else fit.count for fit in self.fits)

    @property
    def exchanged(self) -> _Starts:
        """For each direction the inverse of what the other one supports."""
        forward, backward = (
            [] if fit is None else [np.linalg.inv(fit.moving_from_fixed)] for fit in self.fits
        )
        return backward, forward


def _matched(fixed: PreparedPicture, moving: PreparedPicture, method: Method) -> _Matched:
    return _fitted(*method.match(fixed.features(method), moving.features(method)))


def _fitted(forward: Matches, backward: Matches) -> _Matched:
    fits = ransac_affine(forward, TOLERANCE, 1), ransac_affine(backward, TOLERANCE, 2)
    return _Matched((forward, backward), fits)


def _from_search(
    pairs: Sequence[_Pair], stages: Stages, suggest: Suggest
) -> tuple[_Pair, _Starts, float]:
    """Search with the stronger ridges, and with the others as long as no winner stands out.

    Returns the ridges with the clearest winner, its lead, and the candidates of both directions.
    """
    best, lead, hypotheses = pairs[0], 0.0, list[Hypothesis]()
    for pair in pairs:
        scales = ALL_SCALES if pair is pairs[0] else USUAL_SCALES
        maps = pair[0].searched, pair[1].searched
        with stages.part(SEARCH_SHARE):
            found = searched(*maps, stages, CANDIDATES, scales)
        if not hypotheses or _lead(found) > lead:
            best, lead, hypotheses = pair, _lead(found), found
        if lead > CLEAR_LEAD:
            break
    maps = best[0].searched, best[1].searched
    with stages.part(SEARCH_SHARE):
        scales = scales_near(hypotheses[0], *maps)
        opposite = searched(*maps[::-1], stages, CANDIDATES, scales)
    forward, backward = _suggested(suggest, lead <= CLEAR_LEAD, *best)
    starts = (
        [start.moving_from_fixed for start in hypotheses] + forward,
        [start.moving_from_fixed for start in opposite] + backward,
    )
    return best, starts, lead


def _suggested(
    suggest: Suggest, in_doubt: bool, fixed: PreparedPicture, moving: PreparedPicture
) -> _Starts:
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
    starts: _Starts,
    lead: float,
) -> GlobalFit:
    for each in matched:
        for found, fit in zip(starts, each.fits, strict=True):
            found += [fit.moving_from_fixed] if fit is not None else []
    forward = _best_refined(starts[0], fixed, moving, [each.matches[0] for each in matched])
    backward = _best_refined(starts[1], moving, fixed, [each.matches[1] for each in matched])
    score = chance_score(forward.moving_from_fixed, *small_maps(fixed.searched, moving.searched))
    return GlobalFit(fixed, moving, forward, backward, score, lead)


def _best_refined(
    starts: list[np.ndarray],
    fixed: PreparedPicture,
    moving: PreparedPicture,
    matches: Sequence[Matches],
) -> LinearFit:
    """The start that aligns the vessels best once it is made sub-pixel, or as it is, with those of
    the matches that most agree with it. All are brought near at the coarsest level, the best of
    them then at all."""

    def alike(matrix: np.ndarray) -> float:
        return vessel_similarity(fixed.levels[1], moving.levels[1], linear_map(matrix))

    near = [refined_affine(start, fixed.levels[:1], moving.levels[:1]) for start in starts]
    plausible = [each for each in starts + near if is_plausible(each)] or starts
    similarities = [alike(each) for each in plausible]
    best = plausible[int(np.argmax(similarities))]
    exact = refined_affine(best, fixed.levels, moving.levels)
    if is_plausible(exact) and alike(exact) > max(similarities):
        best = exact
    return _judged(best, fixed, moving, matches)


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
    are_marked: bool = False,
) -> GlobalFit:
    """As global_alignment, from starts near the map initial (4, 4) of the world and its inverse:
    these themselves, and what the features within REACH of them agree on.

    Raises RegistrationError when no camera can have made initial, or a picture shows no vessels.
    """
    stages.at(0.0)
    views = moving.views_beside(fixed)
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
    for number, pair in enumerate(pairs[:1] if are_marked else pairs):
        stages.at(0.2 + 0.8 * number / len(pairs))
        near = [_matched_near(*pair, method, (there, back)) for method in asked]
        found.append(_completed(*pair, near, ([there], [back]), 0.0))
        if _is_plausible(found[-1]):
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
    return _fitted(*(near(*each) for each in zip(both, maps, strict=True)))
