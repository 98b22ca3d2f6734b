"""Displacements on a lattice of cubic voxels: what a deformable registration works with.

A shift is a tensor (1, 3, k, j, i) in voxels of its lattice, in the order (x, y, z) of the tensor
axes (i, j, k): the point x of the lattice goes to x + shift(x). That is a field of nets/fields.py,
which warps and composes it.
"""

from __future__ import annotations

import numpy as np
import torch

from retreg.geometry import Grid
from retreg.transforms import DisplacementField, Transform
from retreg_server.registration.numerics import fields
from retreg_server.registration.numerics.spaces import TensorVolume


def rescaled(displacement: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The shift on another lattice (k, j, i) over the same box, in voxels of that one."""
    if displacement.shape[2:] == shape:
        return displacement
    scale = [shape[2 - axis] / displacement.shape[4 - axis] for axis in range(3)]
    factors = torch.tensor(scale, dtype=displacement.dtype, device=displacement.device)[
        None, :, None, None, None
    ]
    return fields.interpolated(displacement * factors, shape)


def smoothed(volume: torch.Tensor) -> torch.Tensor:
    """The binomial filter 1 2 1 along every axis; (1, c, k, j, i)."""
    for axis in (2, 3, 4):
        inner = volume.shape[axis] - 1
        first, last = volume.narrow(axis, 0, 1), volume.narrow(axis, inner, 1)
        before = torch.cat([first, volume.narrow(axis, 0, inner)], axis)
        after = torch.cat([volume.narrow(axis, 1, inner), last], axis)
        volume = 0.5 * volume + 0.25 * (before + after)
    return volume


def on_shape(lattice: TensorVolume, shape: torch.Size) -> TensorVolume:
    """A lattice of another shape (k, j, i) over the same box; its values are not to be used."""
    return TensorVolume(lattice.tensor.new_empty(()).expand(1, 1, *shape), lattice.world_from_norm)


def field_from_displacement(displacement: torch.Tensor, lattice: TensorVolume) -> DisplacementField:
    """The shift as a field in LPS mm, on its own nodes in the box of lattice."""
    nodes = on_shape(lattice, displacement.shape[2:])
    linear = nodes.world_from_index[:3, :3]
    vectors = np.einsum("ab,bkji->akji", linear, displacement[0].double().cpu().numpy())
    return DisplacementField(vectors, Grid(nodes.size, nodes.world_from_index))


def displacement_from_field(field: Transform, lattice: TensorVolume) -> torch.Tensor:
    """What a transform adds to the voxel centres of lattice, as a shift."""
    points = lattice.voxel_centres()
    index_from_world = np.linalg.inv(lattice.world_from_index[:3, :3])
    vectors = (field(points) - points) @ index_from_world.T
    i, j, k = lattice.size
    return torch.from_numpy(vectors.T.reshape(1, 3, k, j, i)).to(lattice.tensor.dtype)
