"""The local displacement that a network sees between two vessel maps."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional

from retreg_server.registration.fundus.pixel_maps import PixelMap
from retreg_server.registration.fundus.tracking import warped
from retreg_server.registration.fundus.vessel_pyramid import PixelDisplacement, VesselPyramidLevel
from retreg_server.registration.networks.field_net import FieldNet
from retreg_server.registration.networks.input_range import normalised

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
