"""Between pixels and the world: where maps of pixels become transforms in LPS mm, and back.

Registration happens in pixels of two pictures of one scale; it enters and leaves the world here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from retreg.fitting import fit
from retreg.geometry import Grid
from retreg.messages import Keypoints
from retreg.transforms import Affine, Chain, DisplacementField, Transform, as_field
from retreg_server.registration.fundus.pixel_maps import PixelPairs, QuadraticMap
from retreg_server.registration.fundus.prepared_picture import PreparedPicture
from retreg_server.registration.fundus.vessel_pyramid import PixelDisplacement
from retreg_server.registration.preprocessing.retina_picture import Picture

DEFORMABLE = "deformable"
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
    map; vessels are tracked for it where it is needed and not given.
    """

    fixed: PreparedPicture
    moving: PreparedPicture
    affine: np.ndarray
    quadratic: QuadraticMap
    pairs: PixelPairs
    displacement: PixelDisplacement | None = None

    def transform(self, family: str, smoothing: float, grid: Grid) -> Transform:
        """The map of the family, one of FAMILIES, in the world; grid: that of the fixed image."""
        return FAMILIES[family](self, smoothing, grid)

    def keypoints(self) -> tuple[Keypoints, Keypoints]:
        """Fixed and moving keypoints in the world."""
        pairs, fixed, moving = self.pairs, self.fixed.picture, self.moving.picture
        return (
            Keypoints(fixed.world(pairs.fixed), pairs.weights, pairs.inliers),
            Keypoints(moving.world(pairs.moving), pairs.weights, pairs.inliers),
        )

    def world(self, moving_from_fixed: np.ndarray) -> Affine:
        """A (3, 3) pixel matrix in the world."""
        return Affine(world_matrix(moving_from_fixed, self.fixed.picture, self.moving.picture))


def _affine(found: PixelAlignment, _smoothing: float, _grid: Grid) -> Affine:
    return found.world(found.affine)


def _quadratic(found: PixelAlignment, _smoothing: float, grid: Grid) -> Chain:
    """The quadratic map as a smooth field on a lattice around grid, then its affine part."""
    tolerance_mm = TOLERANCE * float(grid.spacing[:2].min())
    bent = _InPlane(found.fixed.picture, _unbent(found.quadratic))
    return Chain((as_field(bent, grid, tolerance_mm), found.world(found.quadratic.affine)))


def _deformable(found: PixelAlignment, _smoothing: float, grid: Grid) -> Chain:
    """x goes to quadratic(x + displacement(x)), as a field without folds and an affine part."""
    # SciPy's sparse solvers and torch take longer to load than all that happened before.
    from retreg_server.registration.fundus.deformation import dense_displacement
    from retreg_server.registration.numerics.folding import unfolded

    picture, quadratic, displacement = found.fixed.picture, found.quadratic, found.displacement
    if displacement is None:
        levels = found.fixed.levels[-1], found.moving.levels[-1]
        displacement = dense_displacement(*levels, quadratic)
    unbent = _unbent(quadratic)
    pixel_mm = float(np.linalg.norm(picture.world_from_pixel[:3, 0]))
    step = max(1, round(NODE_SPACING * pixel_mm / float(grid.spacing[:2].max())))
    moved = _InPlane(picture, lambda points: unbent(displacement(points)))
    field = DisplacementField.sampled(moved, grid.coarsened(step))
    return Chain((unfolded(field), found.world(quadratic.affine)))


def _fitted(family: Literal["rigid", "similarity", "tps"]) -> MakeTransform:
    """The closed form of the family through the keypoints."""

    def fitted(found: PixelAlignment, smoothing: float, _grid: Grid) -> Transform:
        points, targets = found.keypoints()
        return fit(family, points.points, targets.points, points.weights, smoothing)

    return fitted


MakeTransform = Callable[[PixelAlignment, float, Grid], Transform]
FAMILIES: dict[str, MakeTransform] = {
    "quadratic": _quadratic,
    "rigid": _fitted("rigid"),
    "similarity": _fitted("similarity"),
    "affine": _affine,
    "tps": _fitted("tps"),
    DEFORMABLE: _deformable,
}


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
