"""What a transform does as a whole, in numbers for people: matrix, rotation, scale and shift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.geometry import Grid
from retreg.transforms import Affine, Transform

_NODES = 1_000  # of the fixed image, by which a curved transform is described
_SAME_PLANE = 1e-4


@dataclass(frozen=True, eq=False)
class PlacementNumbers:
    """The affine that is nearest to a transform on the fixed image, and what it does.

    matrix: (4, 4) moving from fixed, LPS mm. is_exact: whether the transform is that affine.
    rotation_deg: from -180 to 180 within the plane of two pictures, positive from x to y (clockwise
    on a screen); else from 0 to 180 about rotation_axis, a unit vector. scale: mean change of
    length. shift: (3,) from the middle of the fixed image to where it goes. is_mirrored: whether
    left and right are exchanged.
    """

    matrix: np.ndarray
    is_exact: bool
    rotation_deg: float
    rotation_axis: np.ndarray | None
    scale: float
    shift: np.ndarray
    is_mirrored: bool


def placement_numbers(transform: Transform, fixed: Grid) -> PlacementNumbers:
    """The numbers of a transform from the world of fixed."""
    is_exact = isinstance(transform, Affine)
    matrix = transform.moving_from_fixed if isinstance(transform, Affine) else _fitted(
        transform, fixed
    )
    linear = matrix[:3, :3]
    shift = transform(fixed.centre[None])[0] - fixed.centre
    if fixed.is_plane:
        plane = np.stack([fixed.direction[:, 0], _upright(fixed)], axis=1)
        in_plane = plane.T @ linear @ plane
        if np.allclose(linear @ plane, plane @ in_plane, atol=_SAME_PLANE):
            is_mirrored = bool(np.linalg.det(in_plane) < 0)
            turned = in_plane @ np.diag([1.0, -1.0]) if is_mirrored else in_plane
            angle = np.arctan2(turned[1, 0] - turned[0, 1], turned[0, 0] + turned[1, 1])
            scale = np.sqrt(abs(np.linalg.det(in_plane)))
            return PlacementNumbers(
                matrix, is_exact, float(np.degrees(angle)), None, float(scale), shift, is_mirrored
            )
    is_mirrored = bool(np.linalg.det(linear) < 0)
    left, _, right = np.linalg.svd(-linear if is_mirrored else linear)
    angle_deg, axis = _angle_and_axis(left @ right)
    scale = abs(np.linalg.det(linear)) ** (1 / 3)
    return PlacementNumbers(matrix, is_exact, angle_deg, axis, float(scale), shift, is_mirrored)


def _upright(grid: Grid) -> np.ndarray:
    """The unit vector in the plane of a picture that is at right angles to its rows."""
    along, down = grid.direction[:, 0], grid.direction[:, 1]
    rest = down - (down @ along) * along
    return rest / np.linalg.norm(rest)


def _fitted(transform: Transform, fixed: Grid) -> np.ndarray:
    """(4, 4) least-squares affine on the nodes of a lattice; a plane stays flat and to scale."""
    step = 1
    while np.prod([-(-n // step) for n in fixed.size]) > _NODES:
        step += 1
    points = fixed.lattice(step)
    moved = transform(points)
    middle, moved_middle = points.mean(axis=0), moved.mean(axis=0)
    linear = np.linalg.lstsq(points - middle, moved - moved_middle, rcond=None)[0].T
    if fixed.is_plane:
        normal = np.cross(fixed.direction[:, 0], _upright(fixed))
        columns = linear @ np.stack([fixed.direction[:, 0], _upright(fixed)], axis=1)
        across = np.cross(columns[:, 0], columns[:, 1])
        across /= max(np.sqrt(np.linalg.norm(across)), 1e-12)
        same_side = 1.0 if abs(across @ normal) < 1e-9 else float(np.sign(across @ normal))
        linear = linear - np.outer(linear @ normal, normal) + same_side * np.outer(across, normal)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = moved_middle - linear @ middle
    return matrix


def _angle_and_axis(rotation: np.ndarray) -> tuple[float, np.ndarray]:
    """Degrees from 0 to 180 and the unit axis (3,) of a rotation (3, 3); x where it is none."""
    values, vectors = np.linalg.eig(rotation)
    axis = np.real(vectors[:, np.argmin(abs(values - 1))])
    axis = axis / np.linalg.norm(axis)
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0],
                     rotation[1, 0] - rotation[0, 1]])  # fmt: skip
    axis = -axis if skew @ axis < 0 else axis
    cosine = np.clip((np.trace(rotation) - 1) / 2, -1, 1)
    return float(np.degrees(np.arctan2(np.linalg.norm(skew) / 2, cosine))), axis
