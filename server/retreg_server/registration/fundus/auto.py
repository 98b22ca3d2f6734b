"""The default model for pictures of the retina: any rotation, any mixture of modalities.

Vessels are made to look alike in colour, red-free, infrared and angiography. Local features on
them, learned ones and then SIFT, or a search over rotations and scales where features fail, give a
linear map that is made sub-pixel, bent, and deformed as far as the pictures support it. Where the
keypoints of KeyMorph are asked for, its maps are tried as well; no pair was found that they alone
settle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import ModelInfo, Option, Scalar
from retreg.transforms import Affine
from retreg_server.registration.fundus.affine_quadratic import refined_quadratic
from retreg_server.registration.fundus.global_alignment import (
    GlobalFit,
    LinearFit,
    alignment_near,
    global_alignment,
)
from retreg_server.registration.fundus.keypoint_pairs import keypoint_pairs
from retreg_server.registration.fundus.learned_features import best_methods
from retreg_server.registration.fundus.prepared_picture import PreparedPicture
from retreg_server.registration.fundus.world_transforms import DEFORMABLE, FAMILIES, PixelAlignment
from retreg_server.registration.keymorph.initial_maps import (
    KEYPOINTS,
    NETWORK,
    correspondences_if_wanted,
    no_suggestions,
)
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.options import SMOOTHING
from retreg_server.registration.preprocessing.annotations import PicturePair

DIAMETER = 768


class AutoFundus:
    """Features on vessel maps, search when they fail, Gauss-Newton, tracked vessels."""

    info = ModelInfo(
        name="auto-fundus",
        title="Retina, automatic",
        kinds=("picture",),
        subject="retina",
        produces=tuple(FAMILIES),
        options=(
            Option("transform", "Transform", next(iter(FAMILIES)), tuple(FAMILIES)),
            SMOOTHING,
            KEYPOINTS,
        ),
        citation="DeTone et al. 2018 (SuperPoint); Lowe 2004; Barath et al. 2020 (MAGSAC++); "
        "Padfield 2012; Baker and Matthews 2004; Bouguet 2001; Knutsson and Westin 1993",
    )

    def load(self) -> None:
        """Read the network of the features, where there is one."""
        best_methods()

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """Register two pictures; raises RegistrationError when one of them is blank.

        With keypoints = network, also OptionError or FileError when its weights cannot be used.
        """
        seen = correspondences_if_wanted(options["keypoints"], fixed, moving, stages, 0.05)
        suggest = partial(seen.suggestions, "affine") if seen else no_suggestions
        align = partial(global_alignment, suggest=suggest)
        estimate = _estimated(align, fixed, moving, options, stages)
        return seen.described(estimate) if seen else estimate

    def estimate_near(
        self,
        initial: Affine,
        fixed: Image,
        moving: Image,
        options: Mapping[str, Scalar],
        stages: Stages,
    ) -> Estimate:
        """See GuidedModel.estimate_near. Raises OptionError for keypoints = network."""
        if options["keypoints"] == NETWORK:
            raise OptionError(
                "keypoints = network looks everywhere; leave it, or leave the initial transform."
            )
        align = partial(alignment_near, initial=initial.moving_from_fixed)
        return _estimated(align, fixed, moving, options, stages)


def _estimated(
    align: Callable[..., GlobalFit],
    fixed: Image,
    moving: Image,
    options: Mapping[str, Scalar],
    stages: Stages,
) -> Estimate:
    """The linear map that align finds, made into the transform that is wanted."""
    family, smoothing = str(options["transform"]), float(options["smoothing"])
    with stages.stage("field of view", 0.05):
        pair = PicturePair(fixed, moving)
        pictures = [each.retina(DIAMETER) for each in pair.beside]
    with stages.stage("vessels and features", 0.55):
        found = align(*pictures, stages=stages, are_marked=pair.are_marked)
    with stages.stage("refinement", 0.15):
        forward = refined(found.fixed, found.moving, found.forward)
        stages.at(0.5)
        backward = refined(found.moving, found.fixed, found.backward)
    with stages.stage("transform", 0.2):
        return Estimate(
            forward.transform(family, smoothing, fixed.grid),
            *forward.keypoints(),
            backward.transform(family, smoothing, moving.grid),
            _evidence(found),
            forward.transform("quadratic", 0.0, fixed.grid) if family == DEFORMABLE else None,
            pair,
        )


def refined(
    fixed: PreparedPicture, moving: PreparedPicture, linear: LinearFit
) -> PixelAlignment:
    """The linear map of one direction made sub-pixel and bent, with keypoints that support it."""
    matrix = linear.moving_from_fixed
    quadratic = refined_quadratic(matrix, fixed.levels[1:], moving.levels[1:])
    pairs = keypoint_pairs(fixed, moving, linear, quadratic)
    return PixelAlignment(fixed, moving, matrix, quadratic, pairs)


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
        "scale": found.scale,
        "anisotropy": float(large / small),
        "overlap": forward.agreement.overlap,
    }
    if found.searched:
        evidence["search_lead"] = found.lead
    return evidence
