"""What a keypoint network sees in an image: its keypoints in the world, from several views.

A detection prepares the image once and runs the network in every view. A second detection prepares
it anew, turned by an odd angle, so that its keypoints have errors of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional

from retreg.geometry import apply_matrix
from retreg.image import Image
from retreg_server.registration.keymorph.detection import Detection, detect
from retreg_server.registration.keymorph.inputs import head_cube, vessel_square
from retreg_server.registration.networks.centre_of_mass import HeatMapPoints, Weighting
from retreg_server.registration.networks.devices import chosen_device
from retreg_server.registration.networks.keypoint_net import KeypointNet, net_from_dict
from retreg_server.registration.networks.weights import NetMetadata, load_network
from retreg_server.registration.numerics.spaces import TensorVolume, canonical, isotropic, sample
from retreg_server.registration.preprocessing.foreground import WHOLE
from retreg_server.registration.preprocessing.retina_picture import retina_picture

VIEWS_KEPT = 3
OVERSAMPLED = 2
ODD_ANGLE_DEG = 20.0
DIAMETERS = (768, 700)  # pixels of the retina in the first and the second detection


@dataclass(frozen=True, eq=False)
class KeypointDetections:
    """One image as the network sees it, and what it found there.

    image: (1, 1, n, n[, n]), a cube around the head or a square of vessels. world_from_norm:
    (4, 4), from its normalised coordinates to LPS mm. detections: best first, in normalised
    coordinates.
    """

    image: torch.Tensor
    world_from_norm: np.ndarray
    detections: list[Detection]

    def world(self, detection: Detection) -> np.ndarray:
        """The keypoints (k, 3) in LPS mm."""
        points = functional.pad(detection.points, (0, 3 - detection.points.shape[1]))
        return apply_matrix(self.world_from_norm, points.double().numpy())


def weights(detection: Detection, weighting: Weighting) -> np.ndarray:
    """(k,) of mean 1; see HeatMapPoints.weights."""
    found = HeatMapPoints(detection.points[None], detection.energy[None], detection.variance[None])
    return found.weights(weighting)[0].double().numpy()


KeypointDetector = Callable[[Image, str, bool, str], KeypointDetections]
"""Called with the image, its role ("fixed" or "moving"), whether this is the second detection,
and the device; raises RegistrationError when the image shows nothing to detect."""


@dataclass(frozen=True)
class BrainKeypointDetector:
    """Detects in volumes, with the network of that name."""

    name: str = "keymorph-brain"

    def __call__(self, image: Image, role: str, second: bool, device: str) -> KeypointDetections:
        net, metadata = self._loaded
        assert metadata.spacing_mm is not None
        volume = canonical(image)
        voxels, spacing = OVERSAMPLED * metadata.pixels, metadata.spacing_mm / OVERSAMPLED
        cube = head_cube(volume, role, voxels, spacing)
        if second:
            cube = _turned_cube(volume, cube, spacing)
        found = _detected(net, metadata, cube.tensor, device)
        return KeypointDetections(cube.tensor, cube.world_from_norm, found)

    @cached_property
    def _loaded(self) -> tuple[KeypointNet, NetMetadata]:
        return load_network(self.name, net_from_dict)


@dataclass(frozen=True)
class FundusKeypointDetector:
    """Detects on the vessels of pictures, with the network of that name."""

    name: str = "keymorph-fundus"

    def __call__(self, image: Image, role: str, second: bool, device: str) -> KeypointDetections:
        net, metadata = self._loaded
        picture = retina_picture(image, role, DIAMETERS[second])
        square, norm_from_pixel = vessel_square(picture, OVERSAMPLED * metadata.pixels)
        lifted = np.eye(4)
        lifted[:2, :2], lifted[:2, 3] = norm_from_pixel[:, :2], norm_from_pixel[:, 2]
        world_from_norm = picture.world_from_pixel @ np.linalg.inv(lifted)
        if second:
            turn = _odd_turn(2)
            theta = torch.from_numpy(turn[None, :2][..., [0, 1, 3]]).to(square.dtype)
            grid = functional.affine_grid(theta, list(square.shape), align_corners=False)
            square = functional.grid_sample(square, grid, align_corners=False)
            world_from_norm = world_from_norm @ turn
        return KeypointDetections(square, world_from_norm, _detected(net, metadata, square, device))

    @cached_property
    def _loaded(self) -> tuple[KeypointNet, NetMetadata]:
        return load_network(self.name, net_from_dict)


@cache
def brain_detector() -> BrainKeypointDetector:
    """The detector for heads; its network is read once."""
    return BrainKeypointDetector()


@cache
def fundus_detector() -> FundusKeypointDetector:
    """The detector for retinas; its network is read once."""
    return FundusKeypointDetector()


def _turned_cube(volume: TensorVolume, cube: TensorVolume, spacing_mm: float) -> TensorVolume:
    """The cube cut anew from the volume, turned by the odd angle about its middle."""
    whole = isotropic(volume, spacing_mm, WHOLE, 1)
    target = TensorVolume(cube.tensor, cube.world_from_norm @ _odd_turn(3))
    grey = TensorVolume(whole.tensor[:, :1], whole.world_from_norm)
    return TensorVolume(sample(grey, target, np.eye(4)), target.world_from_norm)


def _odd_turn(dimensions: int) -> np.ndarray:
    """(4, 4) in normalised coordinates, about a diagonal in 3-D."""
    axis = np.array([0, 0, 1.0]) if dimensions == 2 else np.ones(3) / np.sqrt(3)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.radians(ODD_ANGLE_DEG) * axis).as_matrix()
    return turn


def _detected(
    net: KeypointNet, metadata: NetMetadata, image: torch.Tensor, device: str
) -> list[Detection]:
    """The best detections, computed on the device and handed back on the CPU."""
    chosen = chosen_device(device)
    found = detect(
        net.to(chosen),
        image.to(chosen),
        metadata.template.to(chosen),
        metadata.pixels,
        VIEWS_KEPT,
        recentre=image.ndim == 5,
    )
    return [
        replace(
            each,
            points=each.points.cpu(),
            energy=each.energy.cpu(),
            variance=each.variance.cpu(),
            image_from_template=each.image_from_template.cpu(),
        )
        for each in found
    ]
