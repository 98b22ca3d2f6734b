"""The default model for pictures of the retina: any rotation, any mixture of modalities.

Vessels are made to look alike in colour, red-free, infrared and angiography. Local features on
them, or a search over rotations and scales where features fail, give a linear map that is made
sub-pixel, bent, and deformed as far as the pictures support it. Where the search leaves doubt, or
the keypoints of the network are asked for, the maps of KeyMorph are tried as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal, cast

import numpy as np

from retreg.fitting import fit
from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Option, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.registration.fundus.affine_quadratic import refined_quadratic
from retreg_server.registration.fundus.global_alignment import GlobalFit, LinearFit, global_fit
from retreg_server.registration.fundus.keypoint_pairs import PixelPairs, keypoint_pairs
from retreg_server.registration.fundus.pixel_maps import QuadraticMap
from retreg_server.registration.fundus.prepared_picture import Side
from retreg_server.registration.fundus.world_transforms import bent_transform, deformed_transform
from retreg_server.registration.keymorph.initial_maps import KEYPOINTS, suggestions, view_if_wanted
from retreg_server.registration.model import Estimate, Stopwatch
from retreg_server.registration.preprocessing.retina_picture import retina_picture, world_matrix

DIAMETER = 768
FAMILIES = ("quadratic", "rigid", "similarity", "affine", "tps", "deformable")


class AutoFundus:
    """Features on vessel maps, search when they fail, Gauss-Newton, tracked vessels."""

    info = ModelInfo(
        name="auto-fundus",
        title="Retina, automatic",
        kinds=("picture",),
        produces=FAMILIES,
        options=(
            Option("transform", "Transform", FAMILIES[0], choices=FAMILIES),
            Option("smoothing", "Smoothing of the spline", 0.1, minimum=0.0),
            KEYPOINTS,
        ),
        citation="Lowe 2004; Barath et al. 2020 (MAGSAC++); Padfield 2012; Baker and Matthews "
        "2004; Bouguet 2001; Knutsson and Westin 1993",
    )

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], watch: Stopwatch
    ) -> Estimate:
        """Register two pictures; raises RegistrationError when one of them is blank.

        With keypoints = network, also OptionError or FileError when its weights cannot be used.
        """
        view = view_if_wanted(options["keypoints"], fixed, moving, watch, 0.0, 0.04)
        advice = view.suggestions if view else partial(suggestions, fixed, moving)
        with watch.stage("field of view", 0.04):
            fixed_picture = retina_picture(fixed, "fixed", DIAMETER)
            moving_picture = retina_picture(moving, "moving", DIAMETER)
        with watch.stage("vessels and features", 0.05):
            found = global_fit(
                fixed_picture,
                moving_picture,
                lambda done: watch.tick("vessels and features", 0.05 + 0.5 * done),
                partial(advice, "affine"),
            )
        with watch.stage("refinement", 0.6):
            forward = _Direction(found.fixed, found.moving, found.forward)
            backward = _Direction(found.moving, found.fixed, found.backward)
        with watch.stage("transform", 0.75):
            family, smoothing = str(options["transform"]), float(options["smoothing"])
            transform = forward.transform(family, smoothing, fixed)
            watch.tick("transform", 0.82)
            back = backward.transform(family, smoothing, moving)
        deforms = family == "deformable"
        estimate = Estimate(
            transform, *forward.keypoints(), back, _evidence(found),
            undeformed=forward.transform("quadratic", smoothing, fixed) if deforms else None,
        )  # fmt: skip
        return view.described(estimate) if view else estimate


class _Direction:
    """One direction of a registration: its quadratic map, its keypoints, its transforms."""

    def __init__(self, fixed: Side, moving: Side, linear: LinearFit) -> None:
        self._fixed, self._moving, self._linear = fixed, moving, linear
        levels = fixed.levels[1:], moving.levels[1:]
        self.quadratic: QuadraticMap = refined_quadratic(linear.moving_from_fixed, *levels)
        self.pairs: PixelPairs = keypoint_pairs(fixed, moving, linear, self.quadratic)

    def transform(self, family: str, smoothing: float, image: Image) -> Transform:
        """The map of the family in the world, for the fixed image of this direction."""
        fixed, moving = self._fixed.picture, self._moving.picture
        if family == "affine":
            return Affine(world_matrix(self._linear.moving_from_fixed, fixed, moving))
        if family == "quadratic":
            return bent_transform(self.quadratic, fixed, moving, image.grid)
        if family == "deformable":
            return deformed_transform(self.quadratic, self._fixed, self._moving, image.grid)
        points, targets = self.keypoints()
        return fit(
            cast(Literal["rigid", "similarity", "tps"], family),
            points.points, targets.points, points.weights, smoothing,
        )

    def keypoints(self) -> tuple[Keypoints, Keypoints]:
        """Fixed and moving keypoints in the world."""
        pairs = self.pairs
        fixed = self._fixed.picture.world(pairs.fixed)
        moving = self._moving.picture.world(pairs.moving)
        return (
            Keypoints(fixed, pairs.weights, pairs.inliers),
            Keypoints(moving, pairs.weights, pairs.inliers),
        )


def _evidence(found: GlobalFit) -> dict[str, float]:
    forward, backward = found.forward, found.backward
    large, small = np.linalg.svd(forward.moving_from_fixed[:2, :2], compute_uv=False)
    evidence = {
        "matches": float(len(forward.matches)),
        "inliers": float(forward.inliers.sum()),
        "inlier_ratio": float(forward.inliers.mean()) if len(forward.matches) else 0.0,
        "inlier_ratio_backward": float(backward.inliers.mean()) if len(backward.matches) else 0.0,
        "vessel_correlation": forward.agreement.correlation,
        "vessel_correlation_backward": backward.agreement.correlation,
        "vessel_deviations": forward.agreement.deviations,
        "vessel_score": found.score,
        "fallback_used": float(found.searched),
        "scale": float(np.sqrt(large * small)),
        "anisotropy": float(large / small),
        "overlap": forward.agreement.overlap,
    }
    if found.searched:
        evidence["search_lead"] = found.lead
    return evidence
