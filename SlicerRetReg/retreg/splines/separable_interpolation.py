"""Vector functions on all voxels of a grid, interpolated from their values at a few nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.geometry import Grid
from retreg.threads import product

MARGIN = 4  # nodes beyond the image that keep the ends of a spline out of it


@dataclass(frozen=True, eq=False)
class Lattice:
    """Interpolation that is separable along the axes of a grid.

    nodes: (3, k, j, i), three components at every node. weights: for the axes i, j, k the matrices
    (voxels, nodes) that take the nodes along the axis to its voxels; their rows sum to 1.
    """

    nodes: np.ndarray
    weights: tuple[np.ndarray, np.ndarray, np.ndarray]

    def block(self, planes: slice, rows: slice) -> np.ndarray:
        """(3, k, j, i) values in some planes (k) and rows (j) of the grid, all columns."""
        over_i, over_j, over_k = self.weights
        layers = product(over_k[planes], self.nodes.swapaxes(1, 2)).swapaxes(1, 2)
        return product(product(over_j[rows], layers), over_i.T)


def linear_weights(grid: Grid, lattice: Grid, axis: int) -> np.ndarray:
    """(voxels, nodes) weights of linear interpolation along one axis of an aligned lattice."""
    position = _positions(grid, lattice, axis)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(lattice.size[axis])))


def spline_weights(grid: Grid, lattice: Grid, axis: int) -> np.ndarray:
    """(voxels, nodes) weights of the quintic spline through the nodes along an aligned axis.

    The spline is a sum of B-splines (de Boor 1978, A Practical Guide to Splines, ch. IX) at the
    nodes and two places beyond either end, where its fifth derivative does not jump at the second
    and third node ("not a knot"). An axis with a node on every voxel is left as it is.
    """
    count = lattice.size[axis]
    position = _positions(grid, lattice, axis)
    if count == grid.size[axis] and np.allclose(position, np.arange(count)):
        return np.eye(count)
    at_nodes = _b_spline(np.subtract.outer(np.arange(count), np.arange(-2, count + 2)))
    ends = np.zeros((4, count + 4))
    for row in (0, 1):
        ends[row, row : row + 7] = ends[3 - row, ::-1][row : row + 7] = [1, -6, 15, -20, 15, -6, 1]
    coefficients = np.linalg.inv(np.vstack([at_nodes, ends]))[:, :count]
    return product(_b_spline(np.subtract.outer(position, np.arange(-2, count + 2))), coefficients)


def _b_spline(x: np.ndarray) -> np.ndarray:
    """The quintic B-spline with knots at -3 … 3."""
    a = np.abs(x)
    third, second, first = (np.maximum(n - a, 0) ** 5 for n in (3, 2, 1))
    return (third - 6 * second + 15 * first) / 120


def spline_lattice_grid(grid: Grid, steps: np.ndarray) -> Grid:
    """A node at every steps[axis]-th voxel, and MARGIN more around the grid where the step > 1."""
    size = np.array(grid.size)
    wide = steps > 1
    counts = np.where(wide, -(-(size - 1) // steps) + 1 + 2 * MARGIN, size)
    to_index = np.diag([*steps.astype(np.float64), 1.0])
    to_index[:3, 3] = np.where(wide, -MARGIN * steps, 0)
    i, j, k = (int(n) for n in counts)
    return Grid((i, j, k), grid.world_from_index @ to_index)


def _positions(grid: Grid, lattice: Grid, axis: int) -> np.ndarray:
    """Fractional node indices (voxels,) of the voxels along one axis."""
    index = np.zeros((grid.size[axis], 3))
    index[:, axis] = np.arange(grid.size[axis])
    return lattice.index(grid.world(index))[:, axis]
