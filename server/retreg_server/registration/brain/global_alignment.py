"""The rigid, similarity or affine map between two heads of any contrast and any rotation.

All rotations are searched by normalised mutual information on a small grid; the best ones are
improved, and finished by Gauss-Newton on MIND-SSC descriptors. Both directions are searched on
their own; where they leave doubt, each also tries what the other one and KeyMorph found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from retreg.geometry import apply_matrix
from retreg.messages import Keypoints
from retreg.transforms import Affine
from retreg_server.registration.brain.affine_gauss_newton import Aligner, generators
from retreg_server.registration.brain.landmarks import find_landmarks
from retreg_server.registration.brain.rotation_search import (
    Jitter,
    angles_deg,
    climb,
    shifted,
    similarities,
    uniform_rotations,
    well_separated,
)
from retreg_server.registration.brain.volume_pair import Scene
from retreg_server.registration.keymorph.initial_maps import Suggest
from retreg_server.registration.model import Estimate, Stopwatch

ROTATIONS = 1000
CLIMBERS, COPIES = 24, 32
FINALISTS = 5
COARSE_POINTS, FINE_POINTS = 8000, 16000
SCALE_RANGE = (0.75, 1.33)
SHIFT = 0.35  # of the radius: how far the middle of a part may lie from that of the whole
SAME_PLACE_MM = 5.0
CLEAR_MARGIN = 0.1
RIVAL_DEG = 30.0
COMPARING, ALIGNING = "comparing the best rotations", "aligning precisely"


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


def search(scene: Scene, family: str, turned_deg: float) -> Shortlist:
    """Try all rotations by NMI on a small grid, and improve the best of them.

    turned_deg turns the set of rotations that are tried, which makes two searches independent.
    """
    if scene.unequal and scene.volume_ratio < 1:
        found = search(scene.swapped, family, turned_deg)
        return Shortlist(np.linalg.inv(found.candidates), found.margin)
    probe, rigid = scene.probe, family == "rigid"
    turn = Rotation.from_rotvec(np.radians(turned_deg) * np.ones(3) / np.sqrt(3)).as_matrix()
    rotations = uniform_rotations(ROTATIONS) @ turn
    ratio = float(np.clip(np.cbrt(scene.volume_ratio), *SCALE_RANGE))
    scales = [1.0] if rigid or abs(np.log(ratio)) < 0.06 else [1.0, ratio]
    linear = np.concatenate([scale * rotations for scale in scales])
    rough = similarities(linear, scene.domain.core, scene.target.core)
    if scene.unequal:  # the smaller object may be any part of the larger one
        rough = shifted(rough, SHIFT * scene.target.radius_mm)
        likely = np.argsort(-probe.thinned(4).scores(rough), kind="stable")[:ROTATIONS]
        rough = rough[likely]
    best = well_separated(rough, probe.scores(rough), CLIMBERS, 15.0)
    jitter = Jitter(0.2, 0.0 if rigid else 0.06, 8.0, scene.domain.core)
    candidates, scores = climb(probe, rough[best], jitter, range(3), COPIES)
    best = well_separated(candidates, scores, CLIMBERS // 2, 12.0)
    candidates, scores = climb(probe, candidates[best], jitter, range(3, 7), COPIES)
    top = int(scores.argmax())
    turned = angles_deg(candidates[:, :3, :3], candidates[top, :3, :3])
    rival = scores[turned > RIVAL_DEG].max(initial=0.0)
    kept = well_separated(candidates, scores, FINALISTS, 12.0)
    return Shortlist(candidates[kept], float(1 - rival / max(scores[top], 1e-9)))


def settle(scene: Scene, family: str, candidates: np.ndarray) -> Found:
    """Improve candidates (n, 4, 4) by Gauss-Newton at 1/4 and 1/2 resolution, keep the best."""
    centre, radius_mm = scene.domain.core, scene.domain.radius_mm
    stiff = generators("rigid" if family == "rigid" else "similarity", centre, radius_mm)
    coarse = Aligner(scene.levels[4], COARSE_POINTS)
    middle = Aligner(scene.levels[2], COARSE_POINTS)
    moved = [coarse.refine(matrix, stiff, 10) for matrix in candidates]
    order = np.argsort([middle.distance(matrix) for matrix in moved])[:3]
    steps = generators(family, centre, radius_mm)
    moved = [middle.refine(middle.refine(moved[n], stiff, 2), steps, 3) for n in order]
    return min((Found(m, middle.distance(m)) for m in moved), key=lambda found: found.mind)


def settle_both(
    scene: Scene,
    family: str,
    ahead: Shortlist,
    back: Shortlist,
    watch: Stopwatch,
    suggest: Suggest,
) -> tuple[Found, Found, float]:
    """The best of either direction, and how far apart in mm they were found.

    They are in doubt when they disagree, or a clearly different rotation is nearly as good. Then
    each direction also tries what the other one found. What is suggested is always tried.
    """
    forward = settle(scene, family, ahead.candidates)
    watch.tick(COMPARING, 0.5)
    backward = settle(scene.swapped, family, back.candidates)
    gap = gap_mm(scene, forward.matrix, backward.matrix)
    in_doubt = gap > SAME_PLACE_MM or min(ahead.margin, back.margin) < CLEAR_MARGIN
    there, home = suggest(in_doubt)
    if in_doubt:
        there = [np.linalg.inv(backward.matrix), *there]
        home = [np.linalg.inv(forward.matrix), *home]
    return (
        _better(scene, family, forward, there),
        _better(scene.swapped, family, backward, home),
        gap,
    )


def _better(scene: Scene, family: str, found: Found, further: list[np.ndarray]) -> Found:
    """What is found, or the best of further starts (4, 4) if that is closer in MIND."""
    if not further:
        return found
    other = settle(scene, family, np.stack(further))
    return min(found, other, key=lambda each: each.mind)


def finish(scene: Scene, family: str, found: Found) -> tuple[np.ndarray, float]:
    """The last steps at full resolution; also the descriptor distance relative to chance."""
    steps = generators(family, scene.domain.core, scene.domain.radius_mm)
    middle = Aligner(scene.levels[2], COARSE_POINTS)
    fine = Aligner(scene.levels[1], FINE_POINTS)
    matrix = fine.refine(middle.refine(found.matrix, steps, 6), steps, 5)
    return matrix, fine.distance(matrix) / max(fine.chance, 1e-9)


def gap_mm(scene: Scene, forward: np.ndarray, backward: np.ndarray) -> float:
    """Mean distance by which points of the domain miss themselves after going there and back."""
    points = scene.probe.points
    missed = apply_matrix(backward @ forward, points) - points
    return float(np.linalg.norm(missed, axis=1).mean())


def linear_estimate(scene: Scene, family: str, suggest: Suggest, watch: Stopwatch) -> Estimate:
    """Both directions of the linear family, each found on its own."""
    with watch.stage("searching all rotations", 0.1):
        ahead = search(scene, family, 0.0)
    with watch.stage("searching the other direction", 0.25):
        back = search(scene.swapped, family, 7.0)
    with watch.stage(COMPARING, 0.4):
        forward, backward, gap = settle_both(scene, family, ahead, back, watch, suggest)
    with watch.stage(ALIGNING, 0.6):
        matrix, mind = finish(scene, family, forward)
        watch.tick(ALIGNING, 0.72)
        back_matrix, back_mind = finish(scene.swapped, family, backward)
    with watch.stage("placing keypoints", 0.75):
        marks = find_landmarks(scene.levels[1], matrix)
    evidence = {
        "search_gap_mm": gap,
        "search_margin": min(ahead.margin, back.margin),
        "search_nmi": float(scene.probe.scores(matrix[None])[0]),
        "mind_to_chance": max(mind, back_mind),
        "scale": float(np.cbrt(np.linalg.det(matrix[:3, :3]))),
        "keypoint_agreement": float(marks.agrees.mean()),
        "keypoint_similarity": float(marks.similarity.mean()),
    }
    return Estimate(
        Affine(matrix),
        Keypoints(marks.points, marks.similarity, marks.agrees),
        Keypoints(apply_matrix(matrix, marks.points), marks.similarity, marks.agrees),
        Affine(back_matrix),
        evidence,
    )
