"""KeyMorph: a network finds the same keypoints in both images, a closed form does the rest.

Wang, Yu, Dalca, Sabuncu: A robust and interpretable deep learning framework for multi-modal
registration via keypoints, Medical Image Analysis 2023; BrainMorph, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from retreg.errors import DegeneratePointsError, RegistrationError
from retreg.fitting import Family, fit, fit_tps_sweep
from retreg.image import Image
from retreg.messages import ImageKind, Keypoints, ModelInfo, Option, Scalar
from retreg.transforms import Transform
from retreg_server.registration.keymorph.cached_detector import RememberingLooker
from retreg_server.registration.keymorph.detectors import BrainLooker, FundusLooker, Looker
from retreg_server.registration.keymorph.view_matching import (
    Likeness,
    Match,
    correlation,
    matches,
    mutual_information,
)
from retreg_server.registration.model import Estimate, Stopwatch
from retreg_server.registration.networks.centre_of_mass import Weighting
from retreg_server.registration.networks.devices import DEVICES
from retreg_server.registration.networks.weights import load_metadata
from retreg_server.registration.numerics.robust_weights import Linear, robust_weights

FAMILIES = ("affine", "rigid", "similarity", "tps")
WEIGHTINGS = ("variance", "power", "none")
INLIER = 0.1  # distance from the robust map, as a share of the size of the point set
RIVAL = 0.05  # maps further apart than this share of the size are different maps


@dataclass(frozen=True, eq=False)
class KeyMorph:
    """One pass of a network per image and direction, then closed forms at any smoothing.

    The backward transform comes from a second look at both images (see keypoint_looks), in which
    the views are chosen anew: it shows how far the network can be trusted with these images, but
    not an error that it makes in the same way in both looks.
    """

    info: ModelInfo
    look: Looker
    likeness: Likeness

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], watch: Stopwatch
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when an image shows nothing."""
        return self.sweep(fixed, moving, options, (float(options["smoothing"]),), watch)[0]

    def sweep(
        self,
        fixed: Image,
        moving: Image,
        options: Mapping[str, Scalar],
        smoothings: Sequence[float],
        watch: Stopwatch,
    ) -> tuple[Estimate, ...]:
        """One estimate for each of smoothings, from the same keypoints."""
        ahead = self.matched(fixed, moving, options, watch, again=False)
        back = self.matched(fixed, moving, options, watch, again=True)
        with watch.stage("closed form", 0.8):
            try:
                return _estimates(ahead, [back[0].swapped], options, smoothings)
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
        watch: Stopwatch,
        again: bool,
    ) -> list[Match]:
        """Corresponding keypoints, the most likely ones first; again asks for the second look."""
        name, start = ("second look", 0.4) if again else ("keypoints", 0.02)
        device = str(options["device"])
        with watch.stage(name, start):
            still = self.look(fixed, "fixed", again, device)
            watch.tick(name, start + 0.15)
            other = self.look(moving, "moving", again, device)
            watch.tick(name, start + 0.3)
            return matches(still, other, cast(Weighting, options["weights"]), self.likeness)


def _estimates(
    ahead: list[Match],
    back: list[Match],
    options: Mapping[str, Scalar],
    smoothings: Sequence[float],
) -> tuple[Estimate, ...]:
    family, robust = str(options["transform"]), bool(options["robust"])
    best, weights = ahead[0], trusted_weights(ahead[0], family, robust)
    forward = _fitted(family, best, weights, smoothings)
    backward = _fitted(family, back[0], trusted_weights(back[0], family, robust), smoothings)
    inliers = inliers_of(best, weights)
    evidence = {
        "likeness": best.likeness,
        "likeness_lead": best.likeness - _rival(ahead),
        "keypoint_residual": best.residual,
    }
    return tuple(
        Estimate(
            there,
            Keypoints(best.fixed, weights, inliers),
            Keypoints(best.moving, weights, inliers),
            home,
            {name: value for name, value in evidence.items() if np.isfinite(value)},
        )
        for there, home in zip(forward, backward, strict=True)
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
    """The likeness under the best clearly different map; -inf when there is none."""
    best = found[0]
    limit = RIVAL * size_mm(best.moving)
    placed = fit("affine", best.fixed, best.moving, best.weights)
    for other in found[1:]:
        if not np.isfinite(other.likeness):
            break
        elsewhere = fit("affine", other.fixed, other.moving, other.weights)
        if np.linalg.norm(elsewhere(best.fixed) - placed(best.fixed), axis=1).mean() > limit:
            return other.likeness
    return -np.inf


@cache
def keymorph_brain() -> KeyMorph:
    """The model for brain and head volumes of any contrast and rotation."""
    info = _info("keymorph-brain", "Brain, KeyMorph keypoints", "volume")
    return KeyMorph(info, RememberingLooker(BrainLooker()), mutual_information)


@cache
def keymorph_fundus() -> KeyMorph:
    """The model for pictures of the retina of any kind and rotation."""
    info = _info("keymorph-fundus", "Retina, KeyMorph keypoints", "picture")
    return KeyMorph(info, RememberingLooker(FundusLooker()), correlation)


def _info(name: str, title: str, kind: ImageKind) -> ModelInfo:
    return ModelInfo(
        name=name,
        title=title,
        kinds=(kind,),
        produces=FAMILIES,
        options=(
            Option("transform", "Transform", FAMILIES[0], FAMILIES),
            Option("smoothing", "Smoothing of the spline", 0.1, minimum=0.0),
            Option("weights", "Weights of the keypoints", WEIGHTINGS[0], WEIGHTINGS),
            Option("robust", "Mistrust keypoints that do not fit", True),
            Option("device", "Device", DEVICES[0], DEVICES),
        ),
        citation="Wang et al. 2023, Medical Image Analysis 90:102962 (KeyMorph); "
        "Wang et al. 2024 (BrainMorph)",
        weights_sha256=load_metadata(name).sha256,
    )
