"""The displacement field that a network sees between two volumes."""

from __future__ import annotations

import numpy as np
import torch

from retreg.geometry import apply_matrix
from retreg.transforms import DisplacementField
from retreg_server.registration.networks.field_net import FieldNet
from retreg_server.registration.networks.input_range import normalised
from retreg_server.registration.numerics.folding import unfolded
from retreg_server.registration.numerics.lattice_displacement import field_from_displacement
from retreg_server.registration.numerics.spaces import TensorVolume, isotropic, sample
from retreg_server.registration.preprocessing.foreground import WHOLE
from retreg_server.registration.volume.volume_pair import PreparedVolume


@torch.no_grad()
def volume_field(
    net: FieldNet,
    fixed: PreparedVolume,
    moving: PreparedVolume,
    moving_from_fixed: np.ndarray,
    cube: tuple[int, float],
    device: torch.device,
) -> DisplacementField:
    """u in the fixed world: x + u(x), then moving_from_fixed (4, 4), finds x in moving.

    cube: voxels along a side of what the network is shown, and their size in mm. The field lies on
    the nodes of the network and has no folds.
    """
    voxels, spacing_mm = cube
    cube_volume = _cube(fixed, voxels, spacing_mm)
    fixed_coarse = _coarse(fixed, spacing_mm)
    other = _coarse(moving, spacing_mm)
    images = [
        normalised(sample(fixed_coarse, cube_volume, np.eye(4))).to(device),
        normalised(sample(other, cube_volume, moving_from_fixed)).to(device),
    ]
    field = net.to(device)(*images)[-1].float().cpu()
    stride = voxels // field.shape[-1]
    return unfolded(field_from_displacement(field / stride, cube_volume))


def _cube(view: PreparedVolume, voxels: int, spacing_mm: float) -> TensorVolume:
    """The lattice of the network: a cube around the middle of the object; it holds no values."""
    source = view.volume.world_from_norm
    middle = apply_matrix(np.linalg.inv(source), view.foreground.core[None])[0]
    half_mm = np.linalg.norm(source[:3, :3], axis=0)
    cube_from_norm = np.diag([*(voxels * spacing_mm / 2 / half_mm), 1.0])
    cube_from_norm[:3, 3] = middle
    return TensorVolume(torch.empty(()).expand(1, 1, *(voxels,) * 3), source @ cube_from_norm)


def _coarse(view: PreparedVolume, spacing_mm: float) -> TensorVolume:
    """The volume in about the voxels that the network is shown, so that sampling averages."""
    whole = isotropic(view.volume, spacing_mm, WHOLE, 1)
    return TensorVolume(whole.tensor[:, :1], whole.world_from_norm)
