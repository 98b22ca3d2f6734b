"""SmoothProper: a network whose last layer smooths the field it finds (Zhang et al., IPMI 2025).

The global alignment comes first, then the network, then, where it is asked for, a refinement.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property

from retreg.image import Image
from retreg.messages import Keypoints, ModelInfo, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.registration.base import Estimate, Stopwatch
from retreg_server.registration.deformable_brain import DeformableBrain, deformable_brain
from retreg_server.registration.dense_residual import dense_residual, displaced
from retreg_server.registration.devices import chosen_device
from retreg_server.registration.fundus_global import Side
from retreg_server.registration.fundus_pictures import world_matrix
from retreg_server.registration.fundus_start import FundusStart, fundus_start
from retreg_server.registration.fundus_transforms import bent_transform, residual_transform
from retreg_server.registration.global_starts import field_options
from retreg_server.registration.nets.field_net import FieldNet
from retreg_server.registration.parametric_refinement import Level, QuadraticMap
from retreg_server.registration.vessel_agreement import alikeness
from retreg_server.registration.vessel_field import vessel_field
from retreg_server.registration.weights import load_field_net, load_metadata

FAMILIES = ("deformable", "quadratic", "affine")
CITATION = "Zhang et al. 2025, IPMI (SmoothProper)"
ALIGNING, NETWORK = "global alignment", "network"
CLEARLY_BETTER = 1.03  # times the likeness of the vessels


class SmoothProperFundus:
    """Pictures of the retina: vessel maps, a global map, a network, tracked vessels."""

    def __init__(self) -> None:
        self.info = ModelInfo(
            name="smoothproper-fundus",
            title="Retina, SmoothProper",
            kinds=("picture",),
            produces=FAMILIES,
            options=field_options(FAMILIES),
            citation=CITATION,
            weights_sha256=load_metadata("smoothproper-fundus").sha256,
        )

    @cached_property
    def net(self) -> FieldNet:
        """The network, read when it is first needed."""
        return load_field_net("smoothproper-fundus")[0]

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], watch: Stopwatch
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when a picture is blank."""
        with watch.stage(ALIGNING, 0.02):
            start = fundus_start(
                str(options["start"]), fixed, moving,
                lambda done: watch.tick(ALIGNING, 0.02 + 0.5 * done),
            )  # fmt: skip
        with watch.stage(NETWORK, 0.55):
            forward = self._transform(start.fixed, start.moving, start.forward, fixed, options)
            watch.tick(NETWORK, 0.7)
            backward = self._transform(start.moving, start.fixed, start.backward, moving, options)
        undeformed = None
        if options["transform"] == FAMILIES[0]:
            pictures = start.fixed.picture, start.moving.picture
            undeformed = bent_transform(start.forward, *pictures, fixed.grid)
        return Estimate(
            forward, *_keypoints(start), backward, start.evidence, undeformed=undeformed
        )

    def _transform(
        self,
        fixed: Side,
        moving: Side,
        mapped: QuadraticMap,
        image: Image,
        options: Mapping[str, Scalar],
    ) -> Transform:
        """The map of the family in the world, for the fixed image of this direction."""
        pictures, levels = (fixed.picture, moving.picture), (fixed.levels[-1], moving.levels[-1])
        if options["transform"] == "affine":
            return Affine(world_matrix(mapped.affine, *pictures))
        if options["transform"] == "quadratic":
            return bent_transform(mapped, *pictures, image.grid)
        field = vessel_field(self.net, *levels, mapped, chosen_device(str(options["device"])))
        if options["refine"]:
            field = _refined(field, *levels, mapped)
        return residual_transform(mapped, field, *pictures, image.grid)


def _refined(field: Level, fixed: Level, moving: Level, mapped: QuadraticMap) -> Level:
    """What tracking finds from the field of the network, or from none if that is not better.

    Tracking is more precise where it finds the vessels; the network brings them near enough where
    it does not.
    """
    after = alikeness(fixed, moving, lambda points: mapped(displaced(field, points)))
    helps = after > CLEARLY_BETTER * alikeness(fixed, moving, mapped)
    return dense_residual(fixed, moving, mapped, field if helps else None)


def _keypoints(start: FundusStart) -> tuple[Keypoints, Keypoints]:
    pairs = start.pairs
    return (
        Keypoints(start.fixed.picture.world(pairs.fixed), pairs.weights, pairs.inliers),
        Keypoints(start.moving.picture.world(pairs.moving), pairs.weights, pairs.inliers),
    )


@cache
def smoothproper_brain() -> DeformableBrain:
    """The model for brain and head volumes of any contrast."""
    return deformable_brain("smoothproper-brain", "Brain, SmoothProper", CITATION)


@cache
def smoothproper_fundus() -> SmoothProperFundus:
    """The model for pictures of the retina of any kind."""
    return SmoothProperFundus()
