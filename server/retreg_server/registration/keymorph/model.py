"""KeyMorph: a network finds the same keypoints in both images, a closed form does the rest.

Wang, Yu, Dalca, Sabuncu: A robust and interpretable deep learning framework for multi-modal
registration via keypoints, Medical Image Analysis 2023; BrainMorph, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, cast

import numpy as np

from retreg.errors import DegeneratePointsError, RegistrationError
from retreg.fitting import Family, fit, fit_tps_sweep
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import ImageKind, Keypoints, ModelInfo, Option, Scalar
from retreg.transforms import Transform
from retreg_server.registration.keymorph.cached_detector import CachedKeypointDetector
from retreg_server.registration.keymorph.similarity import (
    Similarity,
    correlation,
    mutual_information,
)
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.networks.weights import load_metadata
from retreg_server.registration.numerics.robust_weights import Linear, robust_weights
from retreg_server.registration.options import DEVICES, SMOOTHING
from retreg_server.registration.subject import SUBJECTS

if TYPE_CHECKING:
    from retreg_server.registration.keymorph.detectors import KeypointDetections, KeypointDetector
    from retreg_server.registration.keymorph.view_matching import Match
    from retreg_server.registration.networks.centre_of_mass import Weighting

FAMILIES = ("affine", "rigid", "similarity", "tps")
WEIGHTINGS = ("variance", "power", "none")
INLIER = 0.1  # distance from the robust map, as a share of the size of the point set
SIZE_MM, VOXELS, PIXELS = 190.0, 32, 128  # of what the network is warmed up with
RIVAL = 0.05  # maps further apart than this share of the size are different maps


@dataclass(frozen=True, eq=False)
class KeyMorph:
    """One pass of a network per image and direction, then closed forms at any smoothing.

    The backward transform comes from a second detection in both images (see detectors), in which
    the views are chosen anew: it shows how far the network can be trusted with these images, but
    not an error that it makes in the same way in both detections.
    """

    info: ModelInfo
    detect: KeypointDetector
    similarity: Similarity

    def load(self) -> None:
        """Read the network and let it make its first pass, on a patterned ball."""
        self.detect(_ball(SUBJECTS[self.info.subject].kind), "first", False, "auto")

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows nothing."""
        return self.sweep(fixed, moving, options, (float(options["smoothing"]),), stages)[0]

    def sweep(
        self,
        fixed: Image,
        moving: Image,
        options: Mapping[str, Scalar],
        smoothings: Sequence[float],
        stages: Stages,
    ) -> tuple[Estimate, ...]:
        """One estimate for each of smoothings, from the same keypoints."""
        forward_matches = self.matched(fixed, moving, options, stages, second=False)
        backward_matches = self.matched(fixed, moving, options, stages, second=True)
        with stages.stage("closed form", 0.2):
            try:
                return _estimates(
                    forward_matches, [backward_matches[0].swapped], options, smoothings
                )
            except DegeneratePointsError as error:
                raise RegistrationError(
                    "The keypoints of the two images determine no transform; check that both show "
                    f"what {self.info.name} was trained for."
                ) from error

    def matched(
        self,
        fixed: Image,
        moving: Image,
        options: Mapping[str, Scalar],
        stages: Stages,
        second: bool,
    ) -> list[Match]:
        """Corresponding keypoints, the most likely ones first; second: of the second detection."""
        from retreg_server.registration.keymorph.view_matching import matches

        device, weighting = str(options["device"]), cast("Weighting", options["weights"])
        with stages.stage("second detection" if second else "keypoints", 0.4):
            in_fixed = self.detect(fixed, "fixed", second, device)
            stages.at(0.4)
            in_moving = self.detect(moving, "moving", second, device)
            stages.at(0.8)
            return matches(in_fixed, in_moving, weighting, self.similarity)


def _estimates(
    forward_matches: list[Match],
    backward_matches: list[Match],
    options: Mapping[str, Scalar],
    smoothings: Sequence[float],
) -> tuple[Estimate, ...]:
    family, robust = str(options["transform"]), bool(options["robust"])
    best, opposite = forward_matches[0], backward_matches[0]
    weights = trusted_weights(best, family, robust)
    forward = _fitted(family, best, weights, smoothings)
    backward = _fitted(family, opposite, trusted_weights(opposite, family, robust), smoothings)
    inliers = inliers_of(best, weights)
    evidence = {
        "likeness": best.similarity,
        "likeness_lead": best.similarity - _rival(forward_matches),
        "keypoint_residual": best.residual,
    }
    return tuple(
        Estimate(
            forward_transform,
            Keypoints(best.fixed, weights, inliers),
            Keypoints(best.moving, weights, inliers),
            backward_transform,
            {name: value for name, value in evidence.items() if np.isfinite(value)},
        )
        for forward_transform, backward_transform in zip(forward, backward, strict=True)
    )


def _linear(family: str) -> Linear:
    """The family without bending."""
    return cast(Linear, "affine" if family == "tps" else family)


def trusted_weights(match: Match, family: str, robust: bool) -> np.ndarray:
    """The weights (k,) of the fit, of mean 1."""
    weights = match.weights
    if robust:
        weights = robust_weights(_linear(family), match.fixed, match.moving, weights)
    return weights / weights.mean()


def _fitted(
    family: str, match: Match, weights: np.ndarray, smoothings: Sequence[float]
) -> tuple[Transform, ...]:
    if family == "tps":
        return fit_tps_sweep(match.fixed, match.moving, smoothings, weights)
    transform = fit(cast(Family, family), match.fixed, match.moving, weights)
    return (transform,) * len(smoothings)


def inliers_of(match: Match, weights: np.ndarray) -> np.ndarray:
    """(k,) bool: whether a pair follows the affine map of all."""
    missed = np.linalg.norm(
        fit("affine", match.fixed, match.moving, weights)(match.fixed) - match.moving, axis=1
    )
    return missed < INLIER * size_mm(match.moving)


def size_mm(points: np.ndarray) -> float:
    """Root mean square distance from the centroid, in mm."""
    return float(np.sqrt(points.var(axis=0).sum()))


def _rival(found: list[Match]) -> float:
    """The similarity under the best clearly different map; -inf when there is none."""
    best = found[0]
    limit = RIVAL * size_mm(best.moving)
    placed = fit("affine", best.fixed, best.moving, best.weights)
    for rival in found[1:]:
        if not np.isfinite(rival.similarity):
            break
        elsewhere = fit("affine", rival.fixed, rival.moving, rival.weights)
        if np.linalg.norm(elsewhere(best.fixed) - placed(best.fixed), axis=1).mean() > limit:
            return rival.similarity
    return -np.inf


@cache
def keymorph_brain() -> KeyMorph:
    """The model for brain and head volumes of any contrast and rotation."""
    info = _info("keymorph-brain", "Brain, KeyMorph keypoints", "head")
    return KeyMorph(info, CachedKeypointDetector(_detect_in_head), mutual_information)


@cache
def keymorph_fundus() -> KeyMorph:
    """The model for pictures of the retina of any kind and rotation."""
    info = _info("keymorph-fundus", "Retina, KeyMorph keypoints", "retina")
    return KeyMorph(info, CachedKeypointDetector(_detect_in_retina), correlation)


# torch and MONAI take seconds to load: who asks for the description alone does not wait for them.
def _detect_in_head(image: Image, role: str, second: bool, device: str) -> KeypointDetections:
    from retreg_server.registration.keymorph.detectors import brain_detector

    return brain_detector()(image, role, second, device)


def _detect_in_retina(image: Image, role: str, second: bool, device: str) -> KeypointDetections:
    from retreg_server.registration.keymorph.detectors import fundus_detector

    return fundus_detector()(image, role, second, device)


def _info(name: str, title: str, subject: str) -> ModelInfo:
    return ModelInfo(
        name=name,
        title=title,
        kinds=(SUBJECTS[subject].kind,),
        subject=subject,
        produces=FAMILIES,
        options=(
            Option("transform", "Transform", FAMILIES[0], FAMILIES),
            SMOOTHING,
            Option("weights", "Weights of the keypoints", WEIGHTINGS[0], WEIGHTINGS),
            Option("robust", "Mistrust keypoints that do not fit", True),
            Option("device", "Device", DEVICES[0], DEVICES),
        ),
        citation="Wang et al. 2023, Medical Image Analysis 90:102962 (KeyMorph); "
        "Wang et al. 2024 (BrainMorph)",
        weights_sha256=load_metadata(name).sha256,
    )


def _ball(kind: ImageKind) -> Image:
    """A patterned ball as large as a head, or its middle plane: something to detect at all."""
    side, planes = (PIXELS, 1) if kind == "picture" else (VOXELS, VOXELS)
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (planes, side, side)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    values = np.where(x**2 + y**2 + z**2 < 0.64, 120 + 60 * np.sin(9 * x) * np.cos(7 * y), 0)
    spacing_mm = SIZE_MM / side
    matrix = np.diag([spacing_mm, spacing_mm, spacing_mm, 1])
    return Image(values.astype(np.uint8)[None], Grid((side, side, planes), matrix))
