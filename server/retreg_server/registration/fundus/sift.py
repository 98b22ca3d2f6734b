"""The baseline of the literature for pictures of the retina: SIFT and a robust fit.

Features of the green (or grey) channel, matched by the ratio test, and the transform that most
matches support. It needs pictures of the same modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from retreg.image import Image
from retreg.messages import ModelInfo, Scalar
from retreg_server.registration.fundus.feature_estimate import (
    FAMILIES,
    OPTIONS,
    PictureMethod,
    feature_estimate,
)
from retreg_server.registration.fundus.features import (
    Features,
    matched_both_ways,
    sift_features,
)
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.preprocessing.retina_picture import Picture, whole_picture

LONGER_SIDE = 1000
CONTRAST = 0.02  # half of OpenCV's default: the retina has little contrast
RATIO = 0.8
TOLERANCE = 5.0  # pixels at working size


class FundusSift:
    """SIFT on the pictures themselves, ratio test, affine by RANSAC."""

    info = ModelInfo(
        name="fundus-sift",
        title="Retina, SIFT baseline",
        kinds=("picture",),
        subject="retina",
        produces=FAMILIES,
        options=OPTIONS,
        citation="Lowe 2004; Arandjelovic and Zisserman 2012 (RootSIFT); Barath et al. 2020",
    )

    def load(self) -> None:
        """Nothing is read: there is no network."""

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """Register two pictures; raises RegistrationError when too few features agree."""
        pictures = (
            whole_picture(fixed, "fixed", LONGER_SIDE),
            whole_picture(moving, "moving", LONGER_SIDE),
        )
        return feature_estimate(*pictures, SIFT_ON_GREY, options, stages)


def _features(picture: Picture) -> Features:
    return sift_features(picture.grey, picture.inside, 0, CONTRAST)


SIFT_ON_GREY = PictureMethod(_features, partial(matched_both_ways, ratio=RATIO), TOLERANCE)
