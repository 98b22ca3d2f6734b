"""No folds: a displacement field is smoothed where its Jacobian determinant is too small.

The determinant of a trilinear field is looked at in all eight corners of every cell, where it
takes its extreme values along each edge, and also in the cells beyond the border, where the field
continues with the displacement of its edge.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch.nn import functional

from retreg.transforms import DisplacementField
from retreg_server.registration.numerics.lattice_displacement import smoothed

SMALLEST = 0.1
ROUNDS = 40


def unfolded(field: DisplacementField, smallest: float = SMALLEST) -> DisplacementField:
    """The field with every determinant at least smallest; see unfolded_shift."""
    index_from_world = field.grid.index_from_world[:3, :3]
    displacement = np.einsum("ab,bkji->akji", index_from_world, field.vectors_mm)
    mended = unfolded_displacement(torch.from_numpy(displacement)[None], smallest)[0].numpy()
    world_from_index = field.grid.world_from_index[:3, :3]
    return DisplacementField(np.einsum("ab,bkji->akji", world_from_index, mended), field.grid)


def unfolded_displacement(displacement: torch.Tensor, smallest: float = SMALLEST) -> torch.Tensor:
    """A shift (1, 3, k, j, i), smoothed around the cells that fold or shrink below smallest.

    The neighbourhood that is smoothed grows with the rounds. Should that not be enough, the whole
    shift is weakened, which always ends.
    """
    for attempt in range(ROUNDS):
        bad = smallest_determinants(displacement) < smallest
        if not bad.any():
            return displacement
        near = bad[None, None].to(displacement.dtype)
        near = functional.max_pool3d(near, 2, 1)  # from padded cells to nodes
        for _ in range(1 + attempt // 4):
            near = functional.max_pool3d(near, 3, 1, 1)
        displacement = displacement + smoothed(near) * (
            smoothed(smoothed(displacement)) - displacement
        )
    while (smallest_determinants(displacement) < smallest).any():
        displacement = 0.8 * displacement
    return displacement


def smallest_determinants(displacement: torch.Tensor) -> torch.Tensor:
    """The smallest Jacobian determinant in the corners of each cell, (k + 1, j + 1, i + 1).

    The first and the last cells along each axis lie beyond the outermost nodes.
    """
    padded = functional.pad(displacement, [1] * 6, mode="replicate")[0]
    steps = [padded.diff(dim=3 - axis) for axis in range(3)]
    smallest = torch.full([n - 1 for n in padded.shape[1:]], torch.inf, dtype=displacement.dtype)
    for corner in product((0, 1), repeat=3):
        x, y, z = (_corner(step, axis, corner) for axis, step in enumerate(steps))
        smallest = torch.minimum(smallest, _determinant(x, y, z))
    return smallest


def _corner(step: torch.Tensor, axis: int, corner: tuple[int, ...]) -> torch.Tensor:
    """Of the differences (3, ...) along axis, those on the edge of each cell at that corner."""
    for other in range(3):
        if other != axis:
            dimension = 3 - other
            step = step.narrow(dimension, corner[other], step.shape[dimension] - 1)
    return step


def _determinant(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """det(1 + derivative), whose columns (3, ...) are the derivatives along x, y and z."""
    first = (1 + y[1]) * (1 + z[2]) - y[2] * z[1]
    second = x[1] * (y[0] * (1 + z[2]) - y[2] * z[0])
    third = x[2] * (y[0] * z[1] - (1 + y[1]) * z[0])
    return (1 + x[0]) * first - second + third
