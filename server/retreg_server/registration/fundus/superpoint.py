"""Learned points and descriptors of the vessels, and a robust fit (Zhao and Guan's report)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from retreg.image import Image
from retreg.messages import ModelInfo, Option, Scalar
from retreg_server.registration.fundus.feature_estimate import (
    FAMILIES,
    OPTIONS,
    PictureMethod,
    feature_estimate,
)
from retreg_server.registration.fundus.features import Features, Method
from retreg_server.registration.fundus.learned_features import (
    NAME,
    POINTS,
    learned_method,
    network,
)
from retreg_server.registration.fundus.point_matching import (
    ATTENTION,
    TOLERANCE,
    attention_network,
    usable_matchers,
)
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.networks.weights import load_metadata
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps

DIAMETER = 768
LOOKS = ("4", "1")


class SuperPointFundus:
    """Points of a network on vessel maps, matched with a threshold, affine by RANSAC.

    matcher: the one that is used unless another is asked for.
    """

    def __init__(
        self, name: str = NAME, title: str = "Retina, learned keypoints", matcher: str = "nearest"
    ) -> None:
        self.info = ModelInfo(
            name=name,
            title=title,
            kinds=("picture",),
            subject="retina",
            produces=FAMILIES,
            options=(
                *OPTIONS,
                Option("matcher", "How points are matched", matcher, usable_matchers()),
                Option("points", "Points that are described", next(iter(POINTS)), tuple(POINTS)),
                Option("looks", "Quarter turns of the moving picture", LOOKS[0], LOOKS),
            ),
            citation="DeTone et al. 2018 (SuperPoint); Sarlin et al. 2020 (SuperGlue); Barath et "
            "al. 2020 (MAGSAC++)",
            weights_sha256=load_metadata(name).sha256,
        )

    def load(self) -> None:
        """Read the networks."""
        network()
        if self.info.name == ATTENTION:
            attention_network()

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """Register two pictures; raises RegistrationError when too few points agree."""
        pictures = (
            retina_picture(fixed, "fixed", DIAMETER), retina_picture(moving, "moving", DIAMETER)
        )
        method = learned_method(
            str(options["matcher"]), int(options["looks"]), str(options["points"])
        )
        return feature_estimate(*pictures, on_vessels(method), options, stages)


def superglue_fundus() -> SuperPointFundus:
    """The four steps of the paper with its matcher, a network that looks at all points."""
    return SuperPointFundus(ATTENTION, "Retina, learned keypoints and matches", "attention")


def on_vessels(method: Method) -> PictureMethod:
    """A method for the vessels of pictures that are DIAMETER wide."""
    return PictureMethod(partial(_features, method), method.match, TOLERANCE)


def _features(method: Method, picture: Picture) -> Features:
    maps = vessel_maps(picture.grey, picture.inside)
    return method.detect(maps.best, maps.valid)
