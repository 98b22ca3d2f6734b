"""What the keypoint networks are shown: a cube around the head, or a square of vessels."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from retreg.geometry import apply_matrix
from retreg_server.registration.foreground import find_foreground
from retreg_server.registration.fundus_pictures import Picture
from retreg_server.registration.spaces import NetInput, isotropic
from retreg_server.registration.vesselness import vessel_maps

LOW, HIGH = 0.01, 0.995
EVERY = 5


def normalised(image: torch.Tensor) -> torch.Tensor:
    """From 0 at the 1st to 1 at the 99.5th percentile of every fifth pixel, cut off there.

    image: (b, 1, [z,] y, x), float. The rule for the input of every keypoint network.
    """
    values = image.flatten(1)[:, ::EVERY].contiguous()
    last = values.shape[1] - 1
    shape = (-1, *(1,) * (image.ndim - 1))
    low, high = (
        values.kthvalue(round(share * last) + 1, dim=1).values.reshape(shape)
        for share in (LOW, HIGH)
    )
    return ((image - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)


def head_cube(volume: NetInput, role: str, voxels: int, spacing_mm: float) -> NetInput:
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
    return NetInput(cube.tensor[:, :1], cube.world_from_norm)


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
