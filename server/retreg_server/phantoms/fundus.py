"""Pairs of made-up fundus pictures with known truth."""

from __future__ import annotations

import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine, Chain, DisplacementField, Transform
from retreg_server.phantoms.cameras import FIELD_OF_VIEW, Modality, View, photograph
from retreg_server.phantoms.eye import Eye, make_eye
from retreg_server.phantoms.noise import sample, smooth_noise
from retreg_server.phantoms.pair import PhantomPair

FIELD_STEP = 16


def make_fundus_pair(
    seed: int,
    size: int = 768,
    rotation_deg: float = 30.0,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.03, -0.02),
    elastic_px: float = 2.0,
    fixed: Modality = "colour",
    moving: Modality = "angiography",
) -> PhantomPair:
    """One eye photographed twice; pictures of size x size pixels, uint8.

    The moving picture shows the retina turned by rotation_deg about the middle, scaled, shifted
    by a share of the size along x and y, and bent by a smooth field of elastic_px root mean
    square. Every second seed gives a left eye.
    """
    rng = np.random.default_rng(seed)
    eye = make_eye(rng)
    grid = Grid.of_picture(size, size)
    affine = _about_the_middle(size, rotation_deg, scale, shift)
    bend = _bend(rng, size, elastic_px)
    truth = Chain((bend, affine)) if elastic_px > 0 else affine
    mirrored = bool(seed % 2)
    fixed_view = _view(size, Affine.identity(), None, mirrored)
    moving_view = _view(size, affine, bend if elastic_px > 0 else None, mirrored)
    return PhantomPair(
        fixed=Image(photograph(eye, fixed_view, fixed, rng)[:, None], grid),
        moving=Image(photograph(eye, moving_view, moving, rng)[:, None], grid),
        truth=truth,
        landmarks=_landmarks(eye, fixed_view, truth, size),
    )


def _about_the_middle(
    size: int, rotation_deg: float, scale: float, shift: tuple[float, float]
) -> Affine:
    angle, middle = np.deg2rad(rotation_deg), (size - 1) / 2
    matrix = np.eye(4)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    matrix[:2, :2] = (cosine, -sine), (sine, cosine)
    matrix[:2, 3] = middle + size * np.array(shift) - matrix[:2, :2] @ (middle, middle)
    return Affine(matrix)


def _bend(rng: np.random.Generator, size: int, elastic_px: float) -> DisplacementField:
    """A smooth in-plane field (mm = pixels) on a coarse grid that reaches beyond the picture."""
    grid = Grid.of_picture(2 * size, 2 * size).coarsened(FIELD_STEP)
    matrix = grid.world_from_index.copy()
    matrix[:2, 3] -= size / 2
    grid = Grid(grid.size, matrix)
    height, width = grid.shape[1:]
    waves = [smooth_noise(rng, (height, width), 0.7 * size / FIELD_STEP) for _ in range(2)]
    vectors = np.zeros((3, 1, height, width))
    vectors[:2, 0] = elastic_px / np.sqrt(2) * np.stack(waves)
    return DisplacementField(vectors, grid)


def _view(size: int, affine: Affine, bend: DisplacementField | None, mirrored: bool) -> View:
    """The view whose pixel is affine(bend(fixed pixel)); the fixed picture sees retina units."""
    middle, unit = (size - 1) / 2, FIELD_OF_VIEW * size
    flip = -1.0 if mirrored else 1.0

    def pixels_of(retina: np.ndarray) -> np.ndarray:
        world = np.zeros((len(retina), 3))
        world[:, :2] = retina * (flip * unit, unit) + middle
        return affine(bend(world) if bend else world)[:, :2]

    seen = _fixed_points_of(size, affine, bend)
    scale = float(np.sqrt(np.linalg.det(affine.moving_from_fixed[:2, :2])))
    x, y = (seen - middle) / unit
    return View(flip * x, y, pixels_of, scale * unit)


def _fixed_points_of(size: int, affine: Affine, bend: DisplacementField | None) -> np.ndarray:
    """Fixed points (2, size, size) that land on the pixels: the inverse by fixed-point steps."""
    matrix = affine.inverse.moving_from_fixed
    y, x = np.mgrid[:size, :size].astype(np.float64)
    bent = np.stack([row[0] * x + row[1] * y + row[3] for row in matrix[:2]])
    if bend is None:
        return bent
    to_index = bend.grid.index_from_world
    points = bent
    for _ in range(4):
        column, row = (to_index[axis, axis] * points[axis] + to_index[axis, 3] for axis in (0, 1))
        position = np.stack([row, column])
        points = bent - np.stack([sample(bend.vectors_mm[axis, 0], position) for axis in (0, 1)])
    return points


def _landmarks(eye: Eye, view: View, truth: Transform, size: int) -> np.ndarray:
    """Branchings (n, 3) that lie well inside the field of view of both pictures."""
    points = np.concatenate([tree.points[tree.branchings] for tree in (eye.arteries, eye.veins)])
    world = np.zeros((len(points), 3))
    world[:, :2] = view.pixels_of(points)
    middle = np.array([(size - 1) / 2, (size - 1) / 2, 0.0])
    limit = 0.95 * FIELD_OF_VIEW * size
    inside = np.linalg.norm(world - middle, axis=1) < limit
    seen = np.linalg.norm(truth(world) - middle, axis=1) < limit
    return world[inside & seen]
