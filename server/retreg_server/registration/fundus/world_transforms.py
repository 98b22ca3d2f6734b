"""Bent and deformed pixel maps as transforms of the world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retreg.geometry import Grid
from retreg.transforms import Affine, Chain, DisplacementField, as_field
from retreg_server.registration.fundus.deformation import dense_residual, displaced
from retreg_server.registration.fundus.pixel_maps import QuadraticMap
from retreg_server.registration.fundus.prepared_picture import Side
from retreg_server.registration.fundus.vessel_pyramid import Level
from retreg_server.registration.numerics.folding import unfolded
from retreg_server.registration.preprocessing.retina_picture import Picture, world_matrix

TOLERANCE = 0.01  # fixed pixels by which a field may differ from the bend it stands for
NODE_SPACING = 6  # working pixels between the nodes of a deformation


def bent_transform(mapped: QuadraticMap, fixed: Picture, moving: Picture, grid: Grid) -> Chain:
    """A quadratic map as a smooth field on a lattice around grid, followed by its affine part."""
    tolerance_mm = TOLERANCE * float(grid.spacing[:2].min())
    bend = as_field(_InPlane(fixed, _unbent(mapped)), grid, tolerance_mm)
    return Chain((bend, Affine(world_matrix(mapped.affine, fixed, moving))))


def deformed_transform(mapped: QuadraticMap, fixed: Side, moving: Side, grid: Grid) -> Chain:
    """The quadratic map and what tracked vessels add to it, as a field and an affine part."""
    residual = dense_residual(fixed.levels[-1], moving.levels[-1], mapped)
    return residual_transform(mapped, residual, fixed.picture, moving.picture, grid)


def residual_transform(
    mapped: QuadraticMap, residual: Level, fixed: Picture, moving: Picture, grid: Grid
) -> Chain:
    """x goes to mapped(x + residual(x)), as a field without folds and an affine part.

    residual: a level whose samples are displacements in fixed pixels.
    """
    unbent = _unbent(mapped)

    def deformed(points: np.ndarray) -> np.ndarray:
        return unbent(displaced(residual, points))

    pixel_mm = float(np.linalg.norm(fixed.world_from_pixel[:3, 0]))
    step = max(1, round(NODE_SPACING * pixel_mm / float(grid.spacing[:2].max())))
    field = DisplacementField.sampled(_InPlane(fixed, deformed), grid.coarsened(step))
    return Chain((unfolded(field), Affine(world_matrix(mapped.affine, fixed, moving))))


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
