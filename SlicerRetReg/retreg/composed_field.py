"""Displacement fields on every voxel of a grid, exactly: also with affine transforms around them.

Between the nodes of its lattice a field is linear along every axis, and so is an affine transform.
A chain of affine transforms around one field is therefore one field again, without sampling; and
where its lattice is parallel to a grid, it is interpolated one axis after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.geometry import Grid, apply_matrix
from retreg.transforms import Affine, Chain, DisplacementField, Transform

_MOST = 8  # times the nodes of the field or the voxels of the grid
_PARALLEL = 1e-6  # nodes by which an axis may miss another one over its whole length


def composed_field(transform: Transform, grid: Grid) -> DisplacementField | None:
    """The one field that equals a chain of affines around a field exactly, where grid reaches.

    Its lattice is that of the field, seen through the affines before it, and continued as far as
    grid reaches. None for transforms of another form.
    """
    parts = _flat(transform)
    places = [n for n, part in enumerate(parts) if isinstance(part, DisplacementField)]
    if len(places) != 1:
        return None
    before, after = _product(parts[: places[0]]), _product(parts[places[0] + 1 :])
    field = parts[places[0]]
    if before is None or after is None or not isinstance(field, DisplacementField):
        return None
    lattice = Grid(field.grid.size, np.linalg.inv(before) @ field.grid.world_from_index)
    corners = lattice.index(grid.corners())
    many = np.array(lattice.size) > 1
    if not many.all() and not (grid.is_plane and np.ptp(corners[:, ~many], axis=0).max() <= 1.01):
        return None  # what is constant along an axis would not stay so
    low = np.where(many, np.maximum(0, np.ceil(-corners.min(axis=0))), 0).astype(int)
    high = np.ceil(corners.max(axis=0) - np.array(lattice.size) + 1)
    high = np.where(many, np.maximum(0, high), 0).astype(int)
    nodes_needed = np.prod((np.array(lattice.size) + low + high).astype(np.float64))
    if nodes_needed > _MOST * max(np.prod(lattice.size), np.prod(grid.size)):
        return None  # a fine field for a small part of a large grid
    wider = _continued(field.vectors_mm, low, high)
    shift = np.eye(4)
    shift[:3, 3] = -low
    i, j, k = (int(n) for n in wider.shape[:0:-1])
    around = Grid((i, j, k), lattice.world_from_index @ shift)
    nodes = around.lattice()
    moved = apply_matrix(after, apply_matrix(before, nodes) + wider.reshape(3, -1).T)
    return DisplacementField((moved - nodes).T.reshape(wider.shape), around)


@dataclass(frozen=True, eq=False)
class FieldLattice:
    """Linear interpolation of nodes (3, k, j, i) at positions along the axes (i, j, k)."""

    nodes: np.ndarray
    positions: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, transform: Transform, grid: Grid, frame: np.ndarray | None) -> FieldLattice | None:
        """The moving points of the voxels of grid in a frame (4, 4), or without one displacements.

        None when transform is no field, or when its lattice is not parallel to grid.
        """
        field = composed_field(transform, grid)
        if field is None:
            return None
        axes = field.grid.index_from_world @ grid.world_from_index
        order = np.abs(axes[:3, :3]).argmax(axis=0)  # the lattice axis along each grid axis
        if sorted(order) != [0, 1, 2]:
            return None
        along, start = axes[order, :3], axes[order, 3]
        rest = np.abs(along - np.diag(np.diag(along))) @ np.array(grid.size)
        single = np.array(field.grid.size)[order] == 1
        if rest.max() > _PARALLEL or np.abs(start[single]).max(initial=0) > 0.5:
            return None
        vectors = field.vectors_mm.reshape(3, -1).T
        if frame is not None:
            vectors = apply_matrix(frame, field.grid.lattice() + vectors)
        nodes = vectors.T.reshape(3, *field.grid.shape)
        nodes = nodes.transpose(0, *(3 - order[::-1])).astype(np.float32, copy=False)
        steps = np.diag(along)
        i, j, k = (start[axis] + steps[axis] * np.arange(grid.size[axis]) for axis in range(3))
        return cls(np.ascontiguousarray(nodes), (i, j, k))

    def block(self, planes: slice, rows: slice) -> np.ndarray:
        """(3, k, j, i) values in some planes (k) and rows (j) of the grid, all columns."""
        values = self.nodes
        pieces = (self.positions[2][planes], self.positions[1][rows], self.positions[0])
        for axis, positions in enumerate(pieces, start=1):
            values = _interpolated(values, positions, axis)
        return values

    def whole(self) -> np.ndarray:
        """(3, k, j, i) values on the whole grid."""
        return self.block(slice(None), slice(None))


def _interpolated(values: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along one axis; beyond the ends the values there continue."""
    last = values.shape[axis] - 1
    inside = np.clip(positions, 0, last)
    low = np.minimum(inside.astype(np.int64), max(last - 1, 0))
    shape = [1] * values.ndim
    shape[axis] = len(positions)
    upper = (inside - low).astype(np.float32).reshape(shape)
    first = values.take(low, axis=axis)
    return first + upper * (values.take(np.minimum(low + 1, last), axis=axis) - first)


def _flat(transform: Transform) -> list[Transform]:
    if isinstance(transform, Chain):
        return [part for inner in transform.transforms for part in _flat(inner)]
    return [transform]


def _product(parts: list[Transform]) -> np.ndarray | None:
    """The matrix (4, 4) of affines in a row, or None."""
    matrix = np.eye(4)
    for part in parts:
        if not isinstance(part, Affine):
            return None
        matrix = part.moving_from_fixed @ matrix
    return matrix


def _continued(vectors: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(3, k, j, i) with the values at the edges repeated low and high times along (i, j, k)."""
    ends = [(0, 0), *((int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))]
    return np.pad(vectors, ends, mode="edge")
