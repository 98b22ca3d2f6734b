"""Maps of a registration to look at: where it is sure, where it stretches, how far it moves.

A map is an image of float32 numbers on a lattice of the fixed image, made of the transforms alone:
no pixel of the images counts. Beyond what the moving image shows both transforms are extrapolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.quality import inverse_consistency
from retreg.transforms import Transform

MOST_NODES = 1_000_000  # of a lattice; larger images are sampled at every second voxel, or third
PIECE = 1 << 17  # points that are mapped at a time


@dataclass(frozen=True)
class Kind:
    """What a map shows: a title, and the unit of its numbers, empty for ratios."""

    title: str
    unit: str


KINDS: Mapping[str, Kind] = {
    "error": Kind("Distance after going there and back", "mm"),
    "displacement": Kind("Length of the displacement", "mm"),
    "jacobian": Kind("Jacobian determinant: local change of size", ""),
    "beltrami": Kind("Beltrami coefficient: local change of angles", ""),
}


def map_names(grid: Grid, backward: Transform | None) -> tuple[str, ...]:
    """The maps that can be made of a registration with this fixed grid."""
    missing = {"error"} if backward is None else set()
    missing |= set() if grid.is_plane else {"beltrami"}
    return tuple(name for name in KINDS if name not in missing)


def registration_map(
    name: str, transform: Transform, backward: Transform | None, grid: Grid
) -> Image:
    """The map of that name on the lattice of the fixed grid.

    error: |backward(transform(x)) - x| in mm, small where both directions agree. displacement:
    |transform(x) - x| in mm. jacobian: local change of volume, of area for a picture; at or below
    0 the transform folds. beltrami: the modulus of the Beltrami coefficient, pictures only.
    Raises InputError when the map is not known or cannot be made here.
    """
    if name not in KINDS:
        raise InputError(f"The map {name!r} is not known; use one of {', '.join(KINDS)}.")
    if name not in map_names(grid, backward):
        reason = (
            "needs a transform from moving to fixed, which this result does not hold"
            if name == "error" else "exists for pictures only"
        )
        known = ", ".join(map_names(grid, backward))
        raise InputError(f"The map {name!r} {reason}; use one of {known}.")
    lattice = map_lattice(grid)
    if name == "error" and backward is not None:
        values = _there_and_back(transform, backward, lattice)
    elif name == "displacement":
        values = _displacement(transform, lattice)
    elif name == "jacobian":
        values = jacobian_determinant(transform, lattice)
    else:
        values = np.abs(beltrami_coefficient(transform, lattice))[None]
    return Image(values[None].astype(np.float32), lattice)


def map_lattice(grid: Grid, at_most: int = MOST_NODES) -> Grid:
    """Every voxel centre of grid, or every second, or third, … so that they are at_most.

    Left-over voxels are shared by both ends.
    """
    step = 1
    while np.prod([-(-n // step) for n in grid.size], dtype=np.float64) > at_most:
        step += 1
    counts = [-(-n // step) for n in grid.size]
    to_index = np.diag([float(step)] * 3 + [1.0])
    to_index[:3, 3] = [(n - 1 - (m - 1) * step) / 2 for n, m in zip(grid.size, counts, strict=True)]
    i, j, k = counts
    return Grid((i, j, k), grid.world_from_index @ to_index)


def jacobian_determinant(transform: Transform, lattice: Grid) -> np.ndarray:
    """(k, j, i) local change of volume, or of area for a plane; by central differences.

    A plane may lie anywhere in space, before and after; the side that most of it faces counts as
    its front, and what faces the other way is folded.
    """
    derivative = _derivative(transform, lattice)
    if not lattice.is_plane:
        return np.linalg.det(derivative)
    return np.linalg.det(_in_plane(derivative))


def beltrami_coefficient(transform: Transform, lattice: Grid) -> np.ndarray:
    """(j, i) complex: f_zbar / f_z of a map of the plane, along the columns and rows of lattice.

    0 where angles are kept; (1 + |mu|) / (1 - |mu|) is how much longer the one axis becomes of the
    ellipse that a small circle turns into, and |mu| < 1 exactly where the map keeps orientation
    (Ahlfors 1966; Lam and Lui 2014 for registration). Infinite where f_z is 0.
    """
    if not lattice.is_plane:
        raise InputError("The Beltrami coefficient belongs to pictures; a volume was given.")
    derivative = _in_plane(_derivative(transform, lattice))[0]
    (u_x, u_y), (v_x, v_y) = np.moveaxis(derivative, (2, 3), (0, 1))
    f_z = (u_x + v_y) + 1j * (v_x - u_y)
    f_zbar = (u_x - v_y) + 1j * (v_x + u_y)
    infinite = np.full_like(f_z, np.inf)
    return np.divide(f_zbar, f_z, out=infinite, where=f_z != 0)


def _moved(transform: Transform, lattice: Grid) -> np.ndarray:
    """(k, j, i, 3) where the nodes of the lattice go."""
    moved = [transform(piece) for piece in _pieces(lattice)]
    return np.concatenate(moved).reshape(*lattice.shape, 3)


def _displacement(transform: Transform, lattice: Grid) -> np.ndarray:
    shifts = [np.linalg.norm(transform(piece) - piece, axis=1) for piece in _pieces(lattice)]
    return np.concatenate(shifts).reshape(lattice.shape)


def _there_and_back(transform: Transform, backward: Transform, lattice: Grid) -> np.ndarray:
    errors = [inverse_consistency(transform, backward, piece) for piece in _pieces(lattice)]
    return np.concatenate(errors).reshape(lattice.shape)


def _pieces(lattice: Grid) -> list[np.ndarray]:
    """The world points of the lattice, PIECE of them at a time."""
    nodes = lattice.lattice()
    return [nodes[start : start + PIECE] for start in range(0, len(nodes), PIECE)]


def _derivative(transform: Transform, lattice: Grid) -> np.ndarray:
    """(k, j, i, 3, d): mm of movement per mm. d: the axes of the world, or, of a plane, two
    orthonormal ones, of which the first points along its columns.

    Exact for quadratic maps. An axis with a single node counts as unchanged.
    """
    moved = _moved(transform, lattice)
    columns = []
    for axis in range(2 if lattice.is_plane else 3):
        place = 2 - axis
        if lattice.size[axis] == 1:
            along = np.broadcast_to(lattice.direction[:, axis], moved.shape)
        else:
            order: Literal[1, 2] = 2 if lattice.size[axis] > 2 else 1
            along = np.gradient(moved, lattice.spacing[axis], axis=place, edge_order=order)
        columns.append(along)
    along_axes = np.stack(columns, axis=-1)
    if not lattice.is_plane:
        world: np.ndarray = along_axes @ np.linalg.inv(lattice.direction)
        return world
    skew = np.linalg.qr(lattice.direction[:, :2])[1]  # the axes of an image may be oblique
    upright: np.ndarray = along_axes @ np.linalg.inv(skew * np.sign(np.diag(skew))[:, None])
    return upright


def _in_plane(derivative: np.ndarray) -> np.ndarray:
    """(k, j, i, 2, 2): the derivative (…, 3, 2) in axes of the plane that it leads to.

    The first axis is where the columns of the middle go, on average.
    """
    first = derivative[..., 0].reshape(-1, 3).mean(axis=0)
    normals = np.cross(derivative[..., 0], derivative[..., 1])
    normal = normals.reshape(-1, 3).mean(axis=0)
    first = first / np.linalg.norm(first)
    second = np.cross(normal / np.linalg.norm(normal), first)
    axes = np.stack([first, second / np.linalg.norm(second)])
    projected: np.ndarray = axes @ derivative
    return projected
