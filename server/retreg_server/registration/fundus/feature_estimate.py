"""From matching features of two pictures to a registration: detection, matching, RANSAC, warp.

The four steps of Zhao and Guan's report on ophthalmic registration by learned correspondences; with
SIFT they are the baseline of the literature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import numpy as np

from retreg.errors import DegeneratePointsError, RegistrationError
from retreg.fitting import Family, fit
from retreg.messages import Keypoints, Option, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.registration.fundus.features import (
    Features,
    Matches,
    RobustFit,
    ransac_affine,
)
from retreg_server.registration.fundus.world_transforms import world_matrix
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.options import SMOOTHING
from retreg_server.registration.preprocessing.retina_picture import Picture

FEWEST_INLIERS = 6
MOST_KEYPOINTS = 256
FAMILIES = ("affine", "rigid", "similarity", "tps")
OPTIONS = (
    Option("transform", "Transform", FAMILIES[0], choices=FAMILIES),
    SMOOTHING,
)


class PictureMethod(NamedTuple):
    """How features of whole pictures are found and matched (see features.Method).

    tolerance: pixels within which a match supports a map.
    """

    describe: Callable[[Picture], Features]
    match: Callable[[Features, Features], tuple[Matches, Matches]]
    tolerance: float


def feature_estimate(
    fixed: Picture,
    moving: Picture,
    method: PictureMethod,
    options: Mapping[str, Scalar],
    stages: Stages,
) -> Estimate:
    """The estimate of a model with OPTIONS; RegistrationError when too few features agree."""
    with stages.stage("features", 0.6):
        features = method.describe(fixed)
        stages.at(0.5)
        views = moving.views_beside(fixed)
        shown = [method.describe(view) for view in views]
    with stages.stage("matching", 0.3):
        matched = [method.match(features, each) for each in shown]
        best = max(range(len(views)), key=lambda n: len(matched[n][0]))
        pictures, (forward, backward) = (fixed, views[best]), matched[best]
        found = _supported(forward, method.tolerance, 1)
        found_backward = _supported(backward, method.tolerance, 2)
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


def _supported(matches: Matches, tolerance: float, seed: int) -> RobustFit:
    """The affine that most matches support; raises RegistrationError when too few do."""
    found = ransac_affine(matches, tolerance, seed)
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
