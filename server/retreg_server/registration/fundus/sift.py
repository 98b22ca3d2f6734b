"""The baseline of the literature for pictures of the retina: SIFT and a robust fit.

Features of the green (or grey) channel, matched by the ratio test, and the transform that most
matches support. It needs pictures of the same modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from retreg.errors import DegeneratePointsError, RegistrationError
from retreg.fitting import Family, fit
from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Option, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.registration.fundus.features import (
    Features,
    Matches,
    RobustFit,
    matched_both_ways,
    ransac_affine,
    sift_features,
)
from retreg_server.registration.fundus.world_transforms import world_matrix
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.options import SMOOTHING
from retreg_server.registration.preprocessing.retina_picture import Picture, whole_picture

LONGER_SIDE = 1000
CONTRAST = 0.02  # half of OpenCV's default: the retina has little contrast
RATIO = 0.8
TOLERANCE = 5.0  # pixels at working size
FEWEST_INLIERS = 6
MOST_KEYPOINTS = 256
FAMILIES = ("affine", "rigid", "similarity", "tps")


class FundusSift:
    """SIFT on the pictures themselves, ratio test, affine by RANSAC."""

    info = ModelInfo(
        name="fundus-sift",
        title="Retina, SIFT baseline",
        kinds=("picture",),
        subject="retina",
        produces=FAMILIES,
        options=(
            Option("transform", "Transform", FAMILIES[0], choices=FAMILIES),
            SMOOTHING,
        ),
        citation="Lowe 2004; Arandjelovic and Zisserman 2012 (RootSIFT); Barath et al. 2020",
    )

    def load(self) -> None:
        """Nothing is read: there is no network."""

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """Register two pictures; raises RegistrationError when too few features agree."""
        with stages.stage("features", 0.6):
            fixed_picture = whole_picture(fixed, "fixed", LONGER_SIDE)
            fixed_features = _features(fixed_picture)
            stages.at(0.5)
            # When one geometry is left-handed, the pixels may show the eye mirrored or not.
            shown = whole_picture(moving, "moving", LONGER_SIDE)
            views = [shown]
            if fixed_picture.is_mirrored != shown.is_mirrored:
                views.append(shown.mirrored)
        with stages.stage("matching", 0.3):
            matched = [matched_both_ways(fixed_features, _features(view), RATIO) for view in views]
            best = max(range(len(views)), key=lambda n: len(matched[n][0]))
            pictures, (forward, backward) = (fixed_picture, views[best]), matched[best]
            found = _supported(forward, 1)
            found_backward = _supported(backward, 2)
        with stages.stage("transform", 0.1):
            family, smoothing = cast(Family, options["transform"]), float(options["smoothing"])
            keypoints = _keypoints(forward, found, *pictures)
            transform = _transform(family, smoothing, found, keypoints, *pictures)
            swapped = pictures[::-1]
            backward_keypoints = _keypoints(backward, found_backward, *swapped)
            inverse = _transform(family, smoothing, found_backward, backward_keypoints, *swapped)
        evidence = {
            "matches": float(len(forward)),
            "inliers": float(found.count),
            "inlier_ratio": found.count / len(forward),
            "inlier_ratio_backward": found_backward.count / len(backward),
        }
        return Estimate(transform, keypoints[0], keypoints[1], inverse, evidence)


def _features(picture: Picture) -> Features:
    return sift_features(picture.grey, picture.inside, 0, CONTRAST)


def _supported(matches: Matches, seed: int) -> RobustFit:
    """The affine that most matches support; raises RegistrationError when too few do."""
    found = ransac_affine(matches, TOLERANCE, seed)
    if found is None or found.count < FEWEST_INLIERS:
        agreeing = 0 if found is None else found.count
        raise RegistrationError(
            f"Of {len(matches)} matching features only {agreeing} agree on one transform, and at "
            f"least {FEWEST_INLIERS} are needed; the pictures may differ in modality or show "
            "different places: try auto-fundus."
        )
    return found


def _keypoints(
    matches: Matches, found: RobustFit, fixed: Picture, moving: Picture
) -> tuple[Keypoints, Keypoints]:
    """The most distinct matches, inliers first, in the world."""
    order = np.lexsort((-matches.distinctness, ~found.inliers))[:MOST_KEYPOINTS]
    inliers = found.inliers[order]
    weights = np.where(inliers, matches.distinctness[order], 0.0)
    return (
        Keypoints(fixed.world(matches.fixed[order]), weights, inliers),
        Keypoints(moving.world(matches.moving[order]), weights, inliers),
    )


def _transform(
    family: Family,
    smoothing: float,
    found: RobustFit,
    keypoints: tuple[Keypoints, Keypoints],
    fixed: Picture,
    moving: Picture,
) -> Transform:
    if family == "affine":
        return Affine(world_matrix(found.moving_from_fixed, fixed, moving))
    points, targets = keypoints
    try:
        return fit(family, points.points, targets.points, points.weights, smoothing)
    except DegeneratePointsError as error:
        raise RegistrationError(
            "The matching features lie too close together to determine the transform; the "
            "pictures may differ in modality: try auto-fundus."
        ) from error
