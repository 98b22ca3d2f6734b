"""SmoothProper: a network whose last layer smooths the field it finds (Zhang et al., IPMI 2025).

The global alignment comes first, then the network, then, where it is asked for, a refinement.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property

import cv2
import numpy as np
import torch
from torch.nn import functional

from retreg.image import Image
from retreg.messages import ModelInfo, Scalar
from retreg_server.registration.fundus.deformation import dense_displacement
from retreg_server.registration.fundus.initial_alignment import InitialAlignment, initial_alignment
from retreg_server.registration.fundus.pixel_maps import PixelMap, QuadraticMap
from retreg_server.registration.fundus.prepared_picture import PreparedPicture
from retreg_server.registration.fundus.tracking import warped
from retreg_server.registration.fundus.vessel_pyramid import (
    PixelDisplacement,
    VesselPyramidLevel,
    vessel_similarity,
)
from retreg_server.registration.fundus.world_transforms import PixelAlignment
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.networks.devices import chosen_device
from retreg_server.registration.networks.field_net import FieldNet, field_net_from_dict
from retreg_server.registration.networks.input_range import normalised
from retreg_server.registration.networks.smooth_proper import CITATION
from retreg_server.registration.networks.weights import load_metadata, load_network
from retreg_server.registration.options import field_options

DEFORMABLE = "deformable"
FAMILIES = (DEFORMABLE, "quadratic", "affine")
CLEARLY_BETTER = 1.03  # times the similarity of the vessels
HALF = 2  # pixels of the pictures per pixel that the network is shown
SHRINK = 2 * HALF  # pixels of the pictures per node of its field


@torch.no_grad()
def vessel_field(
    net: FieldNet,
    fixed: VesselPyramidLevel,
    moving: VesselPyramidLevel,
    mapped: PixelMap,
    device: torch.device,
) -> PixelDisplacement:
    """d for which x goes to mapped(x + d(x)).

    The mean of what the network answers to the pictures and to the pictures upside down.
    """
    warped_moving, shown = warped(moving, mapped, fixed.valid.shape)
    both = shown & fixed.valid
    images = [
        _input(image * both, net.architecture.multiple).to(device)
        for image in (fixed.samples[..., 0], warped_moving)
    ]
    upright, turned = net.to(device)(*(_both_ways(image) for image in images))[-1].chunk(2)
    field = (upright - turned.flip(2, 3)) / 2
    height, width = (n // SHRINK for n in fixed.valid.shape)
    pixels = HALF * field[0, :, :height, :width].movedim(0, -1).float().cpu().numpy()
    return PixelDisplacement(np.ascontiguousarray(pixels), SHRINK)


def _both_ways(image: torch.Tensor) -> torch.Tensor:
    """The picture (1, 1, h, w), and the picture upside down: (2, 1, h, w)."""
    return torch.cat([image, image.flip(2, 3)])


def _input(image: np.ndarray, multiple: int) -> torch.Tensor:
    """(1, 1, h, w) at half the size, in the intensities of the training; 0 beyond the edge."""
    height, width = (n // HALF for n in image.shape)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    tensor = torch.from_numpy(small.astype(np.float32))[None, None]
    padding = [0, -width % multiple, 0, -height % multiple]
    return normalised(functional.pad(tensor, padding))


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
            citation=CITATION,
            weights_sha256=load_metadata("smoothproper-fundus").sha256,
        )

    @cached_property
    def net(self) -> FieldNet:
        """The network, read when it is first needed."""
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
        displacement = None
        if options["transform"] == DEFORMABLE:
            levels = fixed.levels[-1], moving.levels[-1]
            device = chosen_device(str(options["device"]))
            displacement = vessel_field(self.net, *levels, mapped, device)
            if options["refine"]:
                displacement = _refined(displacement, *levels, mapped)
        pictures = fixed.picture, moving.picture
        return PixelAlignment(*pictures, mapped.affine, mapped, start.pairs, displacement)


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
    after = vessel_similarity(fixed, moving, lambda points: mapped(displacement(points)))
    helps = after > CLEARLY_BETTER * vessel_similarity(fixed, moving, mapped)
    return dense_displacement(fixed, moving, mapped, displacement if helps else None)


@cache
def smoothproper_fundus() -> SmoothProperFundus:
    """The model for pictures of the retina of any kind."""
    return SmoothProperFundus()
