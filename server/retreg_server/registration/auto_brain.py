"""Brain volumes of any contrast and any rotation, without training.

All rotations are searched by normalised mutual information on a small grid; the best ones are
improved, and finished by Gauss-Newton on MIND-SSC descriptors. Both directions are searched on
their own, each then also tries what the other one found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from retreg.errors import RegistrationError
from retreg.geometry import apply_matrix
from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Option, Scalar
from retreg.transforms import Affine
from scipy.spatial.transform import Rotation

from retreg_server.registration.base import Estimate, Stopwatch
from retreg_server.registration.brain_scene import Scene, View
from retreg_server.registration.gauss_newton import Aligner, generators
from retreg_server.registration.landmarks import find_landmarks
from retreg_server.registration.rotation_search import (
    Jitter,
    angles_deg,
    climb,
    similarities,
    uniform_rotations,
    well_separated,
)

FAMILIES = ("affine", "similarity", "rigid")
ROTATIONS = 1000
CLIMBERS = 24
FINALISTS = 5
COARSE_POINTS, FINE_POINTS = 8000, 16000
SCALE_RANGE = (0.75, 1.33)
SAME_PLACE_MM = 5.0


@dataclass(frozen=True, eq=False)
class Found:
    """The outcome of one direction.

    matrix: (4, 4) from the domain's to the target's world. nmi, mind: its similarity and
    descriptor distance. rival_mind: the distance of the best other rotation.
    """

    matrix: np.ndarray
    nmi: float
    mind: float
    rival_mind: float


def search(scene: Scene, family: str, turned_deg: float) -> np.ndarray:
    """(n, 4, 4) candidates target_from_domain, best first, from all rotations.

    turned_deg turns the set of rotations that are tried, which makes two searches independent.
    """
    if scene.unequal and scene.volume_ratio < 1:
        return np.linalg.inv(search(scene.swapped, family, turned_deg))
    probe, rigid = scene.probe, family == "rigid"
    turn = Rotation.from_rotvec(np.radians(turned_deg) * np.ones(3) / np.sqrt(3)).as_matrix()
    rotations = uniform_rotations(ROTATIONS) @ turn
    ratio = float(np.clip(np.cbrt(scene.volume_ratio), *SCALE_RANGE))
    scales = [1.0] if rigid or abs(np.log(ratio)) < 0.06 else [1.0, ratio]
    linear = np.concatenate([scale * rotations for scale in scales])
    rough = similarities(linear, scene.domain.core, scene.target.core)
    best = well_separated(rough, probe.scores(rough), CLIMBERS, 15.0)
    jitter = Jitter(0.2, 0.0 if rigid else 0.06, 8.0, scene.domain.core)
    candidates, scores = climb(probe, rough[best], jitter, rounds=7, copies=32)
    return candidates[well_separated(candidates, scores, FINALISTS, 12.0)]


def settle(scene: Scene, family: str, candidates: np.ndarray) -> Found:
    """Improve candidates (n, 4, 4) by Gauss-Newton at 1/4 and 1/2 resolution, keep the best."""
    steps = generators(family, scene.domain.core, scene.domain.radius_mm)
    stiff = generators("rigid" if family == "rigid" else "similarity", scene.domain.core,
                       scene.domain.radius_mm)
    coarse = Aligner(scene.levels[4], 1, COARSE_POINTS)
    middle = Aligner(scene.levels[2], 1, COARSE_POINTS)
    moved = [coarse.refine(matrix, stiff, 10) for matrix in candidates]
    scores = np.array([middle.distance(matrix) for matrix in moved])
    order = np.argsort(scores)[:3]
    moved = [middle.refine(middle.refine(moved[n], stiff, 2), steps, 3) for n in order]
    scores = np.array([middle.distance(matrix) for matrix in moved])
    first = int(scores.argmin())
    others = [
        score for matrix, score in zip(moved, scores, strict=True)
        if angles_deg(matrix[:3, :3], moved[first][:3, :3]) > 15
    ]
    nmi = float(scene.probe.scores(moved[first][None])[0])
    return Found(moved[first], nmi, float(scores[first]), min(others, default=np.nan))


def finish(scene: Scene, family: str, matrix: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The last steps at full working resolution; also the descriptor distance and chance's."""
    steps = generators(family, scene.domain.core, scene.domain.radius_mm)
    middle = Aligner(scene.levels[2], 1, COARSE_POINTS)
    fine = Aligner(scene.levels[1], 1, FINE_POINTS)
    matrix = fine.refine(middle.refine(matrix, steps, 6), steps, 5)
    return matrix, fine.distance(matrix), fine.chance


class AutoBrain:
    """Global registration of two brain or head volumes."""

    info = ModelInfo(
        name="auto-brain",
        title="Brain, automatic (any contrast, any rotation)",
        kinds=("volume",),
        produces=FAMILIES,
        options=(Option("transform", "Transform", "affine", FAMILIES),),
        citation=(
            "Heinrich et al. 2013 (MIND-SSC); Studholme et al. 1999 (NMI); Alexa 2022 "
            "(super-Fibonacci rotations)"
        ),
    )

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], watch: Stopwatch
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows no object."""
        family = str(options["transform"])
        with watch.stage("finding the heads", 0.02):
            scene = Scene.of(View.of(fixed, "fixed"), View.of(moving, "moving"))
        with watch.stage("searching all rotations", 0.1):
            ahead = search(scene, family, 0.0)
            back = search(scene.swapped, family, 7.0)
        with watch.stage("comparing the best rotations", 0.35):
            forward = settle(scene, family, ahead)
            backward = settle(scene.swapped, family, back)
            gap = apart(scene, forward.matrix, backward.matrix)
            if gap > SAME_PLACE_MM:
                forward_too = settle(scene, family, np.linalg.inv(backward.matrix)[None])
                backward_too = settle(scene.swapped, family, np.linalg.inv(forward.matrix)[None])
                forward = min(forward, forward_too, key=lambda found: found.mind)
                backward = min(backward, backward_too, key=lambda found: found.mind)
        with watch.stage("aligning precisely", 0.6):
            matrix, mind, chance = finish(scene, family, forward.matrix)
            back_matrix, _, _ = finish(scene.swapped, family, backward.matrix)
        with watch.stage("placing keypoints", 0.85):
            marks = find_landmarks(scene.levels[1], matrix, 1)
            if len(marks.points) == 0:
                raise RegistrationError(
                    "The two volumes do not overlap where they were aligned best; check that both "
                    "show the same part of a head."
                )
        evidence = {
            "search_gap_mm": gap,
            "nmi": forward.nmi,
            "mind": mind,
            "mind_chance": chance,
            "rival_mind_ratio": forward.rival_mind / max(forward.mind, 1e-9),
            "scale": float(np.cbrt(np.linalg.det(matrix[:3, :3]))),
            "landmark_agreement": float(marks.agrees.mean()),
            "landmark_similarity": float(marks.similarity.mean()),
        }
        return Estimate(
            Affine(matrix),
            Keypoints(marks.points, marks.similarity, marks.agrees),
            Keypoints(apply_matrix(matrix, marks.points), marks.similarity, marks.agrees),
            Affine(back_matrix),
            evidence,
        )


def apart(scene: Scene, forward: np.ndarray, backward: np.ndarray) -> float:
    """Mean distance in mm by which domain points miss themselves after going there and back."""
    points = scene.probe.points
    missed = apply_matrix(backward @ forward, points) - points
    return float(np.linalg.norm(missed, axis=1).mean())
