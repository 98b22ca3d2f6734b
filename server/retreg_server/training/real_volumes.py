"""Real head images to look at during training: logged, never trained on or chosen by."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from retreg.files import read_image
from retreg_server.registration.networks.input_range import normalised
from retreg_server.registration.networks.keypoint_net import KeypointNet
from retreg_server.registration.numerics.spaces import TensorVolume, canonical, isotropic, sample
from retreg_server.registration.preprocessing.foreground import find_foreground
from retreg_server.training.losses import weighted_affine

VIEWS = ((0.0, 0.0, 0.0), (25.0, 0.0, 0.0), (0.0, 40.0, 0.0), (20.0, -20.0, 50.0))
OVERSAMPLING = 2
PROBES_MM = 60.0


@dataclass(frozen=True, eq=False)
class RealVolume:
    """Views (v, 1, n, n, n) of one head, and the rotation (3, 3) of each about the centre.

    Normalised points x of the upright view appear at rotation @ x. half_mm: half the side.
    """

    name: str
    views: torch.Tensor
    rotations: torch.Tensor
    half_mm: float

    @classmethod
    def read(cls, file: Path, voxels: int, spacing_mm: float) -> RealVolume:
        """Raises FileError or RegistrationError when the file shows no head."""
        volume = canonical(read_image(file))
        centre = find_foreground(volume, "fixed").core
        half_mm = voxels * spacing_mm / 2
        world_from_norm = np.diag([half_mm, half_mm, half_mm, 1.0])
        world_from_norm[:3, 3] = centre
        whole = np.array([[-1.0] * 3, [1.0] * 3])
        source = isotropic(volume, spacing_mm / OVERSAMPLING, whole, 1)
        source = TensorVolume(source.tensor[:, :1], source.world_from_norm)
        fine = torch.empty(1, 1, *(OVERSAMPLING * voxels,) * 3, device="meta")
        views, rotations = [], []
        for angles in VIEWS:
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
            turned = world_from_norm @ matrix.T
            seen = sample(source, TensorVolume(fine, turned), np.eye(4))
            views.append(normalised(torch.nn.functional.avg_pool3d(seen, OVERSAMPLING)))
            rotations.append(torch.from_numpy(matrix[:3, :3]).float())
        return cls(file.name, torch.cat(views), torch.stack(rotations), half_mm)


def rotation_errors(net: KeypointNet, volumes: list[RealVolume]) -> dict[str, float]:
    """Medians in mm over images and views: how far the keypoints of a rotated view are from where
    those of the upright view went, and the error of the affine that fits them, 6 cm from the
    centre.
    """
    points_off, affine_off = [], []
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=3))) * PROBES_MM / 3**0.5
    device = next(net.parameters()).device
    for volume in volumes:
        found = net(volume.views.to(device)).on("cpu")
        for view in range(1, len(VIEWS)):
            rotation = volume.rotations[view]
            truth = found.points[0] @ rotation.T
            points_off.append(volume.half_mm * (found.points[view] - truth).norm(dim=1).median())
            matrix = weighted_affine(found, 0, view)
            probes = corners / volume.half_mm
            moved = probes @ matrix[:3] + matrix[3]
            affine_off.append(volume.half_mm * (moved - probes @ rotation.T).norm(dim=1).mean())
    if not points_off:
        return {}
    return {
        "real_equivariance": float(torch.stack(points_off).median()),
        "real_affine": float(torch.stack(affine_off).median()),
        "real_affine_worst": float(torch.stack(affine_off).max()),
    }
