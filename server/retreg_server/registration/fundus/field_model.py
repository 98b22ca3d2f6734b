"""Retinal models with a network that answers with a displacement field.

The global alignment comes first, then the network, then, where it is asked for, a refinement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

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

if TYPE_CHECKING:
    import torch

FAMILIES = (DEFORMABLE, "quadratic", "affine")
CLEARLY_BETTER = 1.03  # times the similarity of the vessels


class FieldNetwork(Protocol):
    """A network that sees how two pictures are bent against each other."""

    def load(self) -> None:
        """Read the weights. Raises FileError."""
        ...

    def displacement(
        self,
        fixed: PreparedPicture,
        moving: PreparedPicture,
        mapped: QuadraticMap,
        device: torch.device,
    ) -> PixelDisplacement:
        """d for which x goes to mapped(x + d(x)). Raises FileError for unusable weights."""
        ...


class FieldModel:
    """Pictures of the retina: vessel maps, a global map, a network, tracked vessels."""

    def __init__(self, info: ModelInfo, network: FieldNetwork) -> None:
        self.info = info
        self.network = network

    def load(self) -> None:
        """Read the network."""
        self.network.load()

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
        displacement = None
        if options["transform"] == DEFORMABLE:
            device = chosen_device(str(options["device"]))
            displacement = self.network.displacement(fixed, moving, mapped, device)
            if options["refine"]:
                levels = fixed.levels[-1], moving.levels[-1]
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
