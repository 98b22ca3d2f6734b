"""What the keypoint networks are shown: a cube around the head, or a square of vessels."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from retreg.geometry import apply_matrix
from retreg_server.registration.numerics.spaces import TensorVolume, isotropic
from retreg_server.registration.preprocessing.foreground import find_foreground
from retreg_server.registration.preprocessing.retina_picture import Picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps


def head_cube(volume: TensorVolume, role: str, voxels: int, spacing_mm: float) -> TensorVolume:
    """A cube of voxels^3 around the middle of the head or brain, along the axes of the volume.

    volume: canonical, one channel. role ("fixed" or "moving") is for the message. Intensities are
    those of the volume. Raises RegistrationError when the volume shows no head.
    """
    middle = apply_matrix(
        np.linalg.inv(volume.world_from_norm), find_foreground(volume, role).core[None]
    )[0]
    half_mm = np.linalg.norm(volume.world_from_norm[:3, :3], axis=0)
    reach = (voxels * spacing_mm / 2 - 1e-6) / half_mm
    cube = isotropic(volume, spacing_mm, np.stack([middle - reach, middle + reach]), voxels)
    return TensorVolume(cube.tensor[:, :1], cube.world_from_norm)


def vessel_square(picture: Picture, pixels: int) -> tuple[torch.Tensor, np.ndarray]:
    """The vessels of a picture in a square (1, 1, pixels, pixels), and the (2, 3) matrix that
    takes pixels of the picture to normalised coordinates of the square.
    """
    maps = vessel_maps(picture.grey, picture.inside)
    height, width = picture.grey.shape
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = maps.best
    small = cv2.resize(square, (pixels, pixels), interpolation=cv2.INTER_AREA)
    matrix = np.array(
        [[2 / side, 0, (2 * left + 1) / side - 1], [0, 2 / side, (2 * top + 1) / side - 1]]
    )
    return torch.from_numpy(small)[None, None], matrix
