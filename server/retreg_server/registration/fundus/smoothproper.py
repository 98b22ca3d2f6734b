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
from retreg.messages import Keypoints, ModelInfo, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.registration.fundus.deformation import dense_residual, displaced
from retreg_server.registration.fundus.initial_alignment import FundusStart, fundus_start
from retreg_server.registration.fundus.pixel_maps import PixelMap, QuadraticMap
from retreg_server.registration.fundus.prepared_picture import Side
from retreg_server.registration.fundus.tracking import warped
from retreg_server.registration.fundus.vessel_pyramid import Level, alikeness
from retreg_server.registration.fundus.world_transforms import bent_transform, residual_transform
from retreg_server.registration.model import Estimate, Stopwatch
from retreg_server.registration.networks.devices import chosen_device
from retreg_server.registration.networks.field_net import FieldNet
from retreg_server.registration.networks.input_range import normalised
from retreg_server.registration.networks.smooth_proper import CITATION
from retreg_server.registration.networks.weights import load_field_net, load_metadata
from retreg_server.registration.options import field_options
from retreg_server.registration.preprocessing.retina_picture import world_matrix

FAMILIES = ("deformable", "quadratic", "affine")
ALIGNING, NETWORK = "global alignment", "network"
CLEARLY_BETTER = 1.03  # times the likeness of the vessels
HALF = 2  # pixels of the pictures per pixel that the network is shown
SHRINK = 2 * HALF  # pixels of the pictures per node of its field


@torch.no_grad()
def vessel_field(
    net: FieldNet, fixed: Level, moving: Level, mapped: PixelMap, device: torch.device
) -> Level:
    """A level whose samples (h, w, 2) are displacements d in pixels: x goes to mapped(x + d(x)).

    The mean of what the network answers to the pictures and to the pictures upside down.
    """
    other, shown = warped(moving, mapped, fixed.valid.shape)
    both = shown & fixed.valid
    images = [
        _input(image * both, net.architecture.multiple).to(device)
        for image in (fixed.samples[..., 0], other)
    ]
    upright, turned = net.to(device)(*(_both_ways(image) for image in images))[-1].chunk(2)
    field = (upright - turned.flip(2, 3)) / 2
    height, width = (n // SHRINK for n in fixed.valid.shape)
    pixels = HALF * field[0, :, :height, :width].movedim(0, -1).float().cpu().numpy()
    return Level(np.ascontiguousarray(pixels), np.ones((height, width), bool), SHRINK)


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
def smoothproper_fundus() -> SmoothProperFundus:
    """The model for pictures of the retina of any kind."""
    return SmoothProperFundus()
