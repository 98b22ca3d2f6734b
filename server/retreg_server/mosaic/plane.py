"""The plane of a picture, and maps between the planes of two pictures as transforms of the world.

Points of a plane are (n, 2): millimetres from the first pixel along the rows and the columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.geometry import Grid
from retreg.inverse import Inverse
from retreg.transforms import Affine, Chain, Transform, as_field
from retreg_server.registration.fundus.pixel_maps import QuadraticMap

TOLERANCE = 0.01  # pixels by which a field may differ from the bend that it stands for
LINEAR = 3  # coefficients of the affine part, for each axis
ROOM = 1.5  # radius of a quadratic map over that of the picture


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane in which the pixels of a grid lie."""

    grid: Grid

    def points(self, world: np.ndarray) -> np.ndarray:
        """(n, 2) of LPS mm points (n, 3)."""
        points: np.ndarray = self.grid.index(world)[:, :2] * self.grid.spacing[:2]
        return points

    def world(self, points: np.ndarray) -> np.ndarray:
        """LPS mm (n, 3) of points (n, 2)."""
        return self.grid.world(np.pad(points / self.grid.spacing[:2], ((0, 0), (0, 1))))

    @property
    def world_from_plane(self) -> np.ndarray:
        """(4, 4); the third axis is the unit normal of the grid."""
        matrix: np.ndarray = self.grid.world_from_index / np.append(self.grid.spacing, 1.0)
        return matrix

    @property
    def is_mirrored(self) -> bool:
        """Whether its axes are left-handed in the world."""
        return bool(np.linalg.det(self.grid.world_from_index[:3, :3]) < 0)

    @property
    def centre(self) -> np.ndarray:
        """(2,) the middle of the picture."""
        middle: np.ndarray = (np.array(self.grid.size[:2]) - 1) / 2 * self.grid.spacing[:2]
        return middle

    @property
    def radius(self) -> float:
        """Half the diagonal of the picture."""
        return self.grid.diagonal_mm / 2

    def quadratic(self, coefficients: np.ndarray) -> QuadraticMap:
        """The map of this plane with the coefficients (2, 6)."""
        return QuadraticMap(coefficients, self.centre, ROOM * self.radius)

    @property
    def unmoved(self) -> QuadraticMap:
        """The map that leaves every point where it is."""
        return QuadraticMap.from_affine(np.eye(3), self.centre, ROOM * self.radius)


@dataclass(frozen=True, eq=False)
class Placed:
    """A map from the plane of a view to that of the mosaic, as a transform of the world."""

    mapped: QuadraticMap
    view: Plane
    mosaic: Plane

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 3) LPS mm of the view, in the world of the mosaic."""
        return self.mosaic.world(self.mapped(self.view.points(points)))

    @property
    def view_from_mosaic(self) -> Transform:
        """The other way round: an affine, then the bend as a smooth field on the view."""
        lifted = np.eye(4)
        lifted[np.ix_((0, 1, 3), (0, 1, 3))] = np.linalg.inv(self.mapped.affine)
        to_plane = np.linalg.inv(self.mosaic.world_from_plane)
        linear = Affine(self.view.world_from_plane @ lifted @ to_plane)
        if not self.mapped.coefficients[:, LINEAR:].any():
            return linear
        tolerance_mm = TOLERANCE * float(self.view.grid.spacing[:2].min())
        return Chain((linear, as_field(Inverse(self._bent), self.view.grid, tolerance_mm)))

    def _bent(self, points: np.ndarray) -> np.ndarray:
        """What comes before the affine part of the map, in the world of the view."""
        inverse = np.linalg.inv(self.mapped.affine[:2, :2])
        shift = self.mapped.bend(self.view.points(points)) @ inverse.T
        moved: np.ndarray = points + shift @ self.view.world_from_plane[:3, :2].T
        return moved
