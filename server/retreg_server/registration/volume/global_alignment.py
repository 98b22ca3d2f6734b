"""The rigid, similarity or affine map between two volumes of any contrast and any rotation.

All rotations are searched by normalised mutual information on a small grid; the best ones are
improved, and finished by Gauss-Newton on MIND-SSC descriptors. Both directions are searched on
their own; where they leave doubt, each also tries what the other one and KeyMorph found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from retreg.geometry import apply_matrix
from retreg.messages import Keypoints
from retreg.transforms import Affine
from retreg_server.registration.keymorph.initial_maps import Suggest
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.volume.affine_gauss_newton import Aligner, generators
from retreg_server.registration.volume.both_directions import both_directions
from retreg_server.registration.volume.landmarks import find_landmarks
from retreg_server.registration.volume.part_search import part_starts
from retreg_server.registration.volume.rotation_search import (
    Jitter,
    angles_deg,
    climb,
    shifted,
    similarities,
    uniform_rotations,
    well_separated,
)
from retreg_server.registration.volume.volume_pair import VolumePair

ROTATIONS = 1000
CLIMBERS, COPIES = 24, 32
FINALISTS = 5
COARSE_POINTS, FINE_POINTS = 4000, 16000
COARSE_ROUNDS = (3, 4)  # iterations, each before what is clearly worse is left
CLEARLY = 0.35  # of the way from the best to chance
MIDDLE = 3  # candidates that are improved on the finer level
MET_MM = 1.0
SCALE_RANGE = (0.75, 1.33)
SHIFT = 0.35  # of the radius: how far the middle of a part may lie from that of the whole
SLAB_STEPS = (0.2, 0.4)  # of the radius: how far a slab is tried from where it lies
STIFF = 0.2  # thickness of a slab, as a share of its longest side, that shows no stretch
SAME_PLACE_MM = 5.0
CLEAR_MARGIN = 0.1
RIVAL_DEG = 30.0


@dataclass(frozen=True, eq=False)
class Shortlist:
    """What the search over all rotations leaves.

    candidates: (n, 4, 4) target_from_domain, best first. margin: by how much of its own NMI the
    best one beats every clearly different rotation (0 to 1).
    """

    candidates: np.ndarray
    margin: float


@dataclass(frozen=True, eq=False)
class Found:
    """A settled transform (4, 4) target_from_domain, and its descriptor distance."""

    matrix: np.ndarray
    mind: float


def search(pair: VolumePair, family: str, turned_deg: float) -> Shortlist:
    """Try all rotations by NMI on a small grid, and improve the best of them.

    turned_deg turns the set of rotations that are tried, which makes two searches independent.
    """
    if pair.unequal and pair.volume_ratio < 1:
        found = search(pair.swapped, family, turned_deg)
        return Shortlist(np.linalg.inv(found.candidates), found.margin)
    samples, rigid = pair.samples, family == "rigid"
    turn = Rotation.from_rotvec(np.radians(turned_deg) * np.ones(3) / np.sqrt(3)).as_matrix()
    rotations = uniform_rotations(ROTATIONS) @ turn
    ratio = float(np.clip(np.cbrt(pair.volume_ratio), *SCALE_RANGE))
    scales = [1.0] if rigid or abs(np.log(ratio)) < 0.06 else [1.0, ratio]
    linear = np.concatenate([scale * rotations for scale in scales])
    rough = similarities(linear, pair.domain.core, pair.target.core)
    if pair.unequal:  # the smaller object may be any part of the larger one
        rough = shifted(rough, SHIFT * pair.target.radius_mm)
        likely = np.argsort(-samples.thinned(4).scores(rough), kind="stable")[:ROTATIONS]
        rough = rough[likely]
    best = well_separated(rough, samples.scores(rough), CLIMBERS, 15.0)
    jitter = Jitter(0.2, 0.0 if rigid else 0.06, 8.0, pair.domain.core)
    candidates, scores = climb(samples, rough[best], jitter, range(3), COPIES)
    best = well_separated(candidates, scores, CLIMBERS // 2, 12.0)
    candidates, scores = climb(samples, candidates[best], jitter, range(3, 7), COPIES)
    top = int(scores.argmax())
    turned = angles_deg(candidates[:, :3, :3], candidates[top, :3, :3])
    rival = scores[turned > RIVAL_DEG].max(initial=0.0)
    kept = well_separated(candidates, scores, FINALISTS, 12.0)
    return Shortlist(candidates[kept], float(1 - rival / max(scores[top], 1e-9)))


def settle(pair: VolumePair, family: str, candidates: np.ndarray) -> Found:
    """Improve candidates (n, 4, 4) by Gauss-Newton at 1/4 and 1/2 resolution, keep the best.

    Slabs stay rigid here: too little in them says how large they are. Thin ones are looked at from
    within, whose surroundings the other volume shows, and at finer levels.
    """
    if pair.is_thin and pair.target.is_thinner(pair.domain):
        found = settle(pair.swapped, family, np.linalg.inv(candidates))
        return Found(np.linalg.inv(found.matrix), found.mind)
    family = "rigid" if pair.slab_share < 1 else family
    centre, radius_mm = pair.domain.core, pair.domain.radius_mm
    stiff = generators("rigid" if family == "rigid" else "similarity", centre, radius_mm)
    coarse, middle = (Aligner(pair.levels[n], COARSE_POINTS) for n in pair.settling_levels)
    for iterations in COARSE_ROUNDS:
        candidates = np.stack([coarse.refine(each, stiff, iterations) for each in candidates])
        candidates = _likely(coarse, candidates)
    steps = generators(family, centre, radius_mm)
    moved = [middle.refine(middle.refine(each, stiff, 2), steps, 3)
             for each in _unlike(pair, candidates)[:MIDDLE]]
    return min((Found(m, middle.distance(m)) for m in moved), key=lambda found: found.mind)


def _likely(aligner: Aligner, candidates: np.ndarray) -> np.ndarray:
    """The candidates (n, 4, 4), best first, without those that are clearly worse than the best."""
    distances = np.array([aligner.distance(each) for each in candidates])
    best = distances.min()
    order = np.argsort(distances, kind="stable")
    return candidates[order[distances[order] <= best + CLEARLY * max(aligner.chance - best, 0.0)]]


def _unlike(pair: VolumePair, candidates: np.ndarray) -> np.ndarray:
    """The candidates (n, 4, 4) without those that have met a better one."""
    kept: list[np.ndarray] = []
    for each in candidates:
        if all(_apart_mm(pair, each, other) > MET_MM for other in kept):
            kept.append(each)
    return np.stack(kept)


def _apart_mm(pair: VolumePair, first: np.ndarray, second: np.ndarray) -> float:
    """Mean distance between where two maps (4, 4) put points of the domain."""
    points = pair.samples.points
    return float(np.linalg.norm(apply_matrix(first - second, points), axis=1).mean())


Search = Callable[[bool], Shortlist]
"""Called with whether the way back is wanted."""


def global_search(pair: VolumePair, family: str) -> Search:
    """Tries all rotations, of either direction on its own."""
    return lambda back: search(pair.swapped, family, 7.0) if back else search(pair, family, 0.0)


def search_near(pair: VolumePair, family: str, initial: np.ndarray) -> Search:
    """Tries maps near initial (4, 4), forced into the family, and near its inverse."""
    stiff = _stiffened(initial, family, pair.domain.core)

    def found(back: bool) -> Shortlist:
        here = pair.swapped if back else pair
        start = np.linalg.inv(stiff) if back else stiff
        jitter = Jitter(0.2, 0.0 if family == "rigid" else 0.06, 8.0, here.domain.core)
        rounds = range(1, 7) if back else range(6)  # which also seed what is random
        climbed, _ = climb(here.samples, start[None], jitter, rounds, 2 * COPIES)
        return Shortlist(np.concatenate([climbed, start[None]]), 1.0)

    return found


def _stiffened(matrix: np.ndarray, family: str, centre: np.ndarray) -> np.ndarray:
    """The rigid map (4, 4), else similarity, nearest to a matrix that takes centre to the same."""
    left, sizes, right = np.linalg.svd(matrix[:3, :3])
    turn = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    scale = 1.0 if family == "rigid" else float(np.cbrt(np.prod(sizes)))
    stiff: np.ndarray = similarities(
        (scale * turn)[None], centre, apply_matrix(matrix, centre[None])[0]
    )[0]
    return stiff


class Settled(NamedTuple):
    """The best of either direction, and how far apart in mm they were found."""

    forward: Found
    backward: Found
    gap_mm: float


def settle_both(
    pair: VolumePair,
    family: str,
    shortlists: tuple[Shortlist, Shortlist],
    suggest: Suggest,
    stages: Stages,
) -> Settled:
    """Settle the forward and the backward shortlist.

    They are in doubt when they disagree, or a clearly different rotation is nearly as good. Then
    each direction also tries what the other one found. What is suggested is always tried.
    """
    with stages.part(0.5):
        forward, backward = both_directions(
            lambda _: settle(pair, family, shortlists[0].candidates),
            lambda _: settle(pair.swapped, family, shortlists[1].candidates),
            stages,
        )
    gap = gap_mm(pair, forward.matrix, backward.matrix)
    margin = min(each.margin for each in shortlists)
    in_doubt = gap > SAME_PLACE_MM or margin < CLEAR_MARGIN
    starts = _further_starts(pair, (forward, backward), in_doubt, suggest(in_doubt))
    settled = Settled(forward, backward, gap)
    settled = _improved(pair, family, settled, starts, stages)
    if in_doubt and gap_mm(pair, settled.forward.matrix, settled.backward.matrix) > SAME_PLACE_MM:
        each_other = [np.linalg.inv(each.matrix) for each in (settled.backward, settled.forward)]
        settled = _improved(pair, family, settled, ([each_other[0]], [each_other[1]]), stages)
    return settled


Starts = tuple[list[np.ndarray], list[np.ndarray]]
"""Maps (4, 4) of either direction."""


def _further_starts(
    pair: VolumePair, settled: tuple[Found, Found], in_doubt: bool, suggested: Starts
) -> Starts:
    """What is suggested, what the headers of a slab say, and in doubt the other direction and the
    places of a part."""
    ways = [placed_by_headers(pair)] if pair.slab_share < 1 else []
    if in_doubt and pair.unequal:
        ways.insert(0, placed_as_part(pair))
    both = [each for way in ways for each in way]
    forward, backward = [*both, *suggested[0]], [*map(np.linalg.inv, both), *suggested[1]]
    if in_doubt:
        forward = [np.linalg.inv(settled[1].matrix), *forward]
        backward = [np.linalg.inv(settled[0].matrix), *backward]
    return forward, backward


def _improved(
    pair: VolumePair,
    family: str,
    settled: Settled,
    starts: Starts,
    stages: Stages,
) -> Settled:
    """Both directions, each after its further starts (4, 4)."""
    with stages.part(0.25):
        forward, backward = both_directions(
            lambda _: _better(pair, family, settled.forward, starts[0]),
            lambda _: _better(pair.swapped, family, settled.backward, starts[1]),
            stages,
        )
    return settled._replace(forward=forward, backward=backward)


def placed_as_part(pair: VolumePair) -> list[np.ndarray]:
    """Starts (4, 4) that put the smaller object anywhere in the larger one, see part_search."""
    if pair.volume_ratio < 1:
        return list(np.linalg.inv(part_starts(pair.swapped)))
    return list(part_starts(pair))


def placed_by_headers(pair: VolumePair) -> list[np.ndarray]:
    """Starts (4, 4) without a turn: as the images lie in the world, and centre on centre, each also
    moved along the axes of the world.

    A slab shows too little to be found at any rotation, but is mostly of the same session.
    """
    moves = [np.zeros(3)] + [
        sign * step * pair.domain.radius_mm * axis
        for axis in np.eye(3)
        for step in SLAB_STEPS
        for sign in (-1, 1)
    ]
    starts = []
    for middle in (np.zeros(3), pair.target.core - pair.domain.core):
        for move in moves:
            start = np.eye(4)
            start[:3, 3] = middle + move
            starts.append(start)
    return starts


def _better(pair: VolumePair, family: str, found: Found, further: list[np.ndarray]) -> Found:
    """What is found, or the best of further starts (4, 4) if that is closer in MIND."""
    if not further:
        return found
    further_found = settle(pair, family, np.stack(further))
    return min(found, further_found, key=lambda each: each.mind)


def finish(pair: VolumePair, family: str, found: Found) -> tuple[np.ndarray, float]:
    """The last steps at full resolution; also the descriptor distance relative to chance.

    A slab below STIFF of its longest side in thickness stays rigid.
    """
    family = "rigid" if pair.slab_share < STIFF else family
    steps = generators(family, pair.domain.core, pair.domain.radius_mm)
    matrix, fine = found.matrix, Aligner(pair.levels[1], FINE_POINTS)
    if not pair.is_thin:
        matrix = Aligner(pair.levels[2], COARSE_POINTS).refine(matrix, steps, 6)
    matrix = fine.refine(matrix, steps, 5)
    return matrix, fine.distance(matrix) / max(fine.chance, 1e-9)


def gap_mm(pair: VolumePair, forward: np.ndarray, backward: np.ndarray) -> float:
    """Mean distance by which points of the domain miss themselves after going there and back."""
    return _apart_mm(pair, backward @ forward, np.eye(4))


def linear_estimate(
    pair: VolumePair, family: str, find: Search, suggest: Suggest, stages: Stages
) -> Estimate:
    """Both directions of the linear family, each found on its own."""
    with stages.stage("searching rotations", 0.4):
        lists = both_directions(lambda _: find(False), lambda _: find(True), stages)
    with stages.stage("comparing the best rotations", 0.25):
        settled = settle_both(pair, family, lists, suggest, stages)
    with stages.stage("aligning precisely", 0.25):
        (matrix, mind), (backward_matrix, backward_mind) = both_directions(
            lambda _: finish(pair, family, settled.forward),
            lambda _: finish(pair.swapped, family, settled.backward),
            stages,
        )
    with stages.stage("placing keypoints", 0.1):
        marks = find_landmarks(pair.levels[1], matrix)
    evidence = {
        "search_gap_mm": settled.gap_mm,
        "search_margin": min(each.margin for each in lists),
        "search_nmi": float(pair.samples.scores(matrix[None])[0]),
        "mind_to_chance": max(mind, backward_mind),
        "scale": float(np.cbrt(np.linalg.det(matrix[:3, :3]))),
        "keypoint_agreement": float(marks.agrees.mean()),
        "keypoint_similarity": float(marks.similarity.mean()),
    }
    return Estimate(
        Affine(matrix),
        Keypoints(marks.points, marks.similarity, marks.agrees),
        Keypoints(apply_matrix(matrix, marks.points), marks.similarity, marks.agrees),
        Affine(backward_matrix),
        evidence,
    )
