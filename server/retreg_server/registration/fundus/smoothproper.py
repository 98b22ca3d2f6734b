"""SmoothProper: a network whose last layer smooths the field it finds (Zhang et al., IPMI 2025).

The global alignment comes first, then the network, then, where it is asked for, a refinement.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import TYPE_CHECKING

from retreg.image import Image
from retreg.messages import ModelInfo, Scalar
from retreg_server.registration.fundus.initial_alignment import InitialAlignment, initial_alignment
from retreg_server.registration.fundus.pixel_maps import QuadraticMap
from retreg_server.registration.fundus.prepared_picture import PreparedPicture
from retreg_server.registration.fundus.vessel_pyramid import (
    PixelDisplacement,
    VesselPyramidLevel,
    vessel_similarity,
)
from retreg_server.registration.fundus.world_transforms import DEFORMABLE, PixelAlignment
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.networks.devices import chosen_device
from retreg_server.registration.networks.weights import load_metadata, load_network
from retreg_server.registration.options import SMOOTHPROPER, field_options

if TYPE_CHECKING:
    from retreg_server.registration.networks.field_net import FieldNet

FAMILIES = (DEFORMABLE, "quadratic", "affine")
CLEARLY_BETTER = 1.03  # times the similarity of the vessels


class SmoothProperFundus:
    """Pictures of the retina: vessel maps, a global map, a network, tracked vessels."""

    def __init__(self) -> None:
        self.info = ModelInfo(
            name="smoothproper-fundus",
            title="Retina, SmoothProper",
            kinds=("picture",),
            subject="retina",
            produces=FAMILIES,
            options=field_options(FAMILIES),
            citation=SMOOTHPROPER,
            weights_sha256=load_metadata("smoothproper-fundus").sha256,
        )

    @cached_property
    def net(self) -> FieldNet:
        """The network, read when it is first needed."""
        from retreg_server.registration.networks.field_net import field_net_from_dict

        return load_network("smoothproper-fundus", field_net_from_dict)[0]

    def load(self) -> None:
        """Read the network."""
        _ = self.net

    def estimate(
        self, fixed: Image, moving: Image, options: Mapping[str, Scalar], stages: Stages
    ) -> Estimate:
        """See Model.estimate. Raises RegistrationError when a picture is blank."""
        with stages.stage("global alignment", 0.6):
            start = initial_alignment(str(options["start"]), fixed, moving, stages)
        with stages.stage("network", 0.4):
            forward = self._aligned(start.fixed, start.moving, start.forward, start, options)
            stages.at(0.4)
            backward = self._aligned(start.moving, start.fixed, start.backward, start, options)
            family = str(options["transform"])
            return Estimate(
                forward.transform(family, 0.0, fixed.grid),
                *forward.keypoints(),
                backward.transform(family, 0.0, moving.grid),
                start.evidence,
                forward.transform("quadratic", 0.0, fixed.grid) if family == DEFORMABLE else None,
            )

    def _aligned(
        self,
        fixed: PreparedPicture,
        moving: PreparedPicture,
        mapped: QuadraticMap,
        start: InitialAlignment,
        options: Mapping[str, Scalar],
    ) -> PixelAlignment:
        """One direction in pixels, with the field of the network where it is asked for."""
        from retreg_server.registration.fundus.network_field import vessel_field

        displacement = None
        if options["transform"] == DEFORMABLE:
            levels = fixed.levels[-1], moving.levels[-1]
            device = chosen_device(str(options["device"]))
            displacement = vessel_field(self.net, *levels, mapped, device)
            if options["refine"]:
                displacement = _refined(displacement, *levels, mapped)
        return PixelAlignment(fixed, moving, mapped.affine, mapped, start.pairs, displacement)


def _refined(
    displacement: PixelDisplacement,
    fixed: VesselPyramidLevel,
    moving: VesselPyramidLevel,
    mapped: QuadraticMap,
) -> PixelDisplacement:
    """What tracking finds from the field of the network, or from none if that is not better.

    Tracking is more precise where it finds the vessels; the network brings them near enough where
    it does not.
    """
    from retreg_server.registration.fundus.deformation import dense_displacement

    after = vessel_similarity(fixed, moving, lambda points: mapped(displacement(points)))
    helps = after > CLEARLY_BETTER * vessel_similarity(fixed, moving, mapped)
    return dense_displacement(fixed, moving, mapped, displacement if helps else None)


@cache
def smoothproper_fundus() -> SmoothProperFundus:
    """The model for pictures of the retina of any kind."""
    return SmoothProperFundus()
