"""What KeyMorph sees in two images, for models that register by other means.

Its maps are tried beside those of the model, and its keypoints can be the ones that are returned.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from retreg.errors import DegeneratePointsError, FileError, OptionError, RegistrationError
from retreg.fitting import fit
from retreg.image import Image
from retreg.messages import Keypoints, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.registration.keymorph.model import (
    INLIER,
    KeyMorph,
    size_mm,
    trusted_weights,
)
from retreg_server.registration.keymorph.view_matching import Match
from retreg_server.registration.model import Estimate, Model, Stages
from retreg_server.registration.networks.weights import is_shipped
from retreg_server.registration.numerics.robust_weights import Linear, trust
from retreg_server.registration.registry import get_model
from retreg_server.registration.subject import subject_of

CANDIDATES = 3
APART = 0.05  # maps closer than this share of the size of the point set are the same
OPTIONS: dict[str, Scalar] = {"weights": "variance", "device": "cpu"}


def keymorph_matches(fixed: Image, moving: Image, second: bool = False) -> list[Match]:
    """Corresponding keypoints by similarity, or nothing when no weights are installed.

    second: from the second detection, for an estimate of the other direction. Nothing is raised:
    what KeyMorph cannot see, or weights that are damaged, only leave the other model on its own.
    """
    try:
        model = installed_keymorph(fixed)
        if model is None:
            return []
        return model.matched(fixed, moving, OPTIONS, Stages(), second)
    except (RegistrationError, FileError) as error:
        logging.getLogger(__name__).warning("KeyMorph gives no candidates: %s", error)
        return []


def keymorph_candidates(
    fixed: Image, moving: Image, family: Linear = "affine", second: bool = False
) -> list[np.ndarray]:
    """Matrices (4, 4) from the fixed to the moving world, most likely first, all different.

    Empty without weights; see keymorph_matches.
    """
    return candidates_of(keymorph_matches(fixed, moving, second), family)


def candidates_of(matches: list[Match], family: Linear = "affine") -> list[np.ndarray]:
    """The robust maps of at most CANDIDATES matches that lead to different places."""
    found: list[np.ndarray] = []
    for match in matches:
        if not np.isfinite(match.similarity):
            break
        try:
            weights = trusted_weights(match, family, True)
            transform = fit(family, match.fixed, match.moving, weights)
        except DegeneratePointsError:
            continue
        assert isinstance(transform, Affine)
        matrix = transform.moving_from_fixed
        known = [_distance(matrix, other, match.fixed) for other in found]
        if min(known, default=np.inf) > APART * size_mm(match.moving):
            found.append(matrix)
    return found[:CANDIDATES]


def installed_keymorph(image: Image) -> KeyMorph | None:
    """KeyMorph for what the image shows, None without weights. Raises FileError when damaged."""
    name = subject_of(image).keypoint_model
    return cast(KeyMorph, get_model(name)) if is_shipped(name) else None


def _distance(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> float:
    difference = first - second
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


@dataclass(frozen=True, eq=False)
class KeypointCorrespondences:
    """Corresponding keypoints from the fixed to the moving image, and back from a second detection.

    Each has the most likely match of views first.
    """

    forward: list[Match]
    backward: list[Match]

    @classmethod
    def of(cls, fixed: Image, moving: Image, stages: Stages) -> KeypointCorrespondences:
        """Detect keypoints in both images twice.

        Raises OptionError when no weights are installed, FileError when they cannot be used, and
        RegistrationError when an image shows nothing.
        """
        model = _needed(fixed, "keypoints = network", "keypoints = matched")
        forward = model.matched(fixed, moving, OPTIONS, Stages(), second=False)
        stages.at(0.5)
        return cls(forward, model.matched(moving, fixed, OPTIONS, Stages(), second=True))

    def suggestions(
        self, family: Linear, in_doubt: bool
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The maps of the family forward and backward, whether or not they are needed."""
        del in_doubt
        return candidates_of(self.forward, family), candidates_of(self.backward, family)

    def described(self, estimate: Estimate) -> Estimate:
        """The estimate with the network's keypoints in place of its own.

        Fixed points are where the network saw them in the fixed image. The transform takes them to
        the moving points, so that a fit to the pairs gives the transform again. How far from there
        the network saw them in the moving image decides on their weights (1 at no distance, a
        quarter at INLIER of the size of the point set) and inlier states. Of the matches of views
        the one that the transform supports best is taken.
        """
        transform = estimate.transform
        match = max(
            self.forward,
            key=lambda match: np.average(trust(_missed(match, transform)), weights=match.weights),
        )
        missed = _missed(match, transform)
        weights, inliers = trust(missed), missed < 1
        residual_mm = float(np.median(missed)) * INLIER * size_mm(match.moving)
        return replace(
            estimate,
            fixed_keypoints=Keypoints(match.fixed, weights, inliers),
            moving_keypoints=Keypoints(transform(match.fixed), weights, inliers),
            evidence={**estimate.evidence, "network_residual_mm": residual_mm},
        )


def _missed(match: Match, transform: Transform) -> np.ndarray:
    """(k,) distances of the transform from what the network saw; 1 is as far as inliers go."""
    distances = np.linalg.norm(transform(match.fixed) - match.moving, axis=1)
    missed: np.ndarray = distances / (INLIER * size_mm(match.moving))
    return missed


def keymorph_for(image: Image) -> Model:
    """KeyMorph for what the image shows. Raises OptionError when its weights are not installed."""
    return _needed(image, "The start keymorph", "the start auto")


def _needed(image: Image, wish: str, remedy: str) -> KeyMorph:
    model = installed_keymorph(image)
    if model is None:
        raise OptionError(
            f"{wish} needs the weights of {subject_of(image).keypoint_model}, which are not "
            f"installed; use {remedy}."
        )
    return model
