"""Between pixels and the world: where maps of pixels become transforms in LPS mm, and back.

Registration happens in pixels of two pictures of one scale; it enters and leaves the world here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from retreg.fitting import fit
from retreg.geometry import Grid
from retreg.messages import Keypoints
from retreg.transforms import Affine, Chain, DisplacementField, Transform, as_field
from retreg_server.registration.fundus.pixel_maps import PixelPairs, QuadraticMap
from retreg_server.registration.fundus.vessel_pyramid import PixelDisplacement
from retreg_server.registration.preprocessing.retina_picture import Picture

TOLERANCE = 0.01  # fixed pixels by which a field may differ from the bend it stands for
NODE_SPACING = 6  # working pixels between the nodes of a deformation


def world_matrix(moving_from_fixed: np.ndarray, fixed: Picture, moving: Picture) -> np.ndarray:
    """The (4, 4) world matrix of a (3, 3) pixel matrix; it takes the normal to the normal."""
    lifted = np.eye(4)
    lifted[np.ix_((0, 1, 3), (0, 1, 3))] = moving_from_fixed
    matrix: np.ndarray = moving.world_from_pixel @ lifted @ np.linalg.inv(fixed.world_from_pixel)
    return matrix


def pixel_matrix(world: np.ndarray, fixed: Picture, moving: Picture) -> np.ndarray:
    """The (3, 3) pixel matrix of a (4, 4) world matrix: the inverse of world_matrix."""
    lifted = np.linalg.inv(moving.world_from_pixel) @ world @ fixed.world_from_pixel
    return lifted[np.ix_((0, 1, 3), (0, 1, 3))]


@dataclass(frozen=True, eq=False)
class PixelAlignment:
    """What was found in one direction, in pixels of the fixed and the moving picture.

    affine: (3, 3) moving from fixed pixels. displacement: of the fixed pixels before the quadratic
    map, where a deformation was asked for.
    """

    fixed: Picture
    moving: Picture
    affine: np.ndarray
    quadratic: QuadraticMap
    pairs: PixelPairs
    displacement: PixelDisplacement | None = None

    def transform(self, family: str, smoothing: float, grid: Grid) -> Transform:
        """The map of the family in the world; grid: that of the fixed image."""
        if family == "affine":
            return Affine(world_matrix(self.affine, self.fixed, self.moving))
        if family == "quadratic":
            return self._bent(grid)
        if family == "deformable":
            return self._deformed(grid)
        points, targets = self.keypoints()
        return fit(
            cast(Literal["rigid", "similarity", "tps"], family),
            points.points, targets.points, points.weights, smoothing,
        )  # fmt: skip

    def keypoints(self) -> tuple[Keypoints, Keypoints]:
        """Fixed and moving keypoints in the world."""
        pairs = self.pairs
        return (
            Keypoints(self.fixed.world(pairs.fixed), pairs.weights, pairs.inliers),
            Keypoints(self.moving.world(pairs.moving), pairs.weights, pairs.inliers),
        )

    def _bent(self, grid: Grid) -> Chain:
        """The quadratic map as a smooth field on a lattice around grid, then its affine part."""
        tolerance_mm = TOLERANCE * float(grid.spacing[:2].min())
        bend = as_field(_InPlane(self.fixed, _unbent(self.quadratic)), grid, tolerance_mm)
        return Chain((bend, self._affine_part))

    def _deformed(self, grid: Grid) -> Chain:
        """x goes to quadratic(x + displacement(x)), as a field without folds and an affine part."""
        from retreg_server.registration.numerics.folding import unfolded  # needs torch

        unbent, displacement = _unbent(self.quadratic), self.displacement
        assert displacement is not None
        pixel_mm = float(np.linalg.norm(self.fixed.world_from_pixel[:3, 0]))
        step = max(1, round(NODE_SPACING * pixel_mm / float(grid.spacing[:2].max())))
        moved = _InPlane(self.fixed, lambda points: unbent(displacement(points)))
        field = DisplacementField.sampled(moved, grid.coarsened(step))
        return Chain((unfolded(field), self._affine_part))

    @property
    def _affine_part(self) -> Affine:
        return Affine(world_matrix(self.quadratic.affine, self.fixed, self.moving))


class _InPlane:
    """A map of fixed pixels to fixed pixels as a transform of the world that keeps the plane."""

    def __init__(self, picture: Picture, moved: Callable[[np.ndarray], np.ndarray]) -> None:
        self._picture = picture
        self._moved = moved

    def __call__(self, points: np.ndarray) -> np.ndarray:
        pixels = self._picture.pixels(points)
        shift = self._moved(pixels) - pixels
        moved: np.ndarray = points + shift @ self._picture.world_from_pixel[:3, :2].T
        return moved


def _unbent(mapped: QuadraticMap) -> Callable[[np.ndarray], np.ndarray]:
    """Where the affine part alone must look to find what mapped finds at a point."""
    inverse = np.linalg.inv(mapped.affine[:2, :2]).T

    def unbent(points: np.ndarray) -> np.ndarray:
        moved: np.ndarray = points + mapped.bend(points) @ inverse
        return moved

    return unbent
