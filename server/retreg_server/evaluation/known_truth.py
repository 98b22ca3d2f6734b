"""Makes pairs whose true transform is known exactly, by resampling real images."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField, Transform

MARGIN_MM = 5.0
TRUTH_POINTS = 4000
WARP_NODES = 7
WARP_LATTICE = 64


def axis_rotation(axis: np.ndarray, angle_deg: float) -> np.ndarray:
    """(3, 3) rotation about an axis (3,) by the formula of Rodrigues."""
    x, y, z = np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(angle_deg)
    turned: np.ndarray = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turned


def turned_picture(original: Image, angle_deg: float, scale: float) -> tuple[Image, Affine]:
    """The picture turned and scaled on a canvas that holds all of it, and original_from_moving."""
    width, height, _ = original.grid.size
    linear = axis_rotation(np.array([0, 0, 1]), angle_deg)
    linear[:2, :2] *= scale
    corners = np.array([[x, y, 0] for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)])
    low, high = _bounds(corners @ linear.T)
    columns, rows, _ = np.ceil(high - low).astype(int)
    moving_from_original = np.eye(4)
    moving_from_original[:3, :3] = linear
    moving_from_original[:2, 3] = -0.5 - low[:2]
    original_from_moving = Affine(moving_from_original).inverse
    canvas = Grid.of_picture(int(columns), int(rows))
    return resample(original, original_from_moving, canvas), original_from_moving


def turned_volume(
    original: Image, rotation: np.ndarray, shift_mm: np.ndarray
) -> tuple[Image, Affine]:
    """The head turned about its centre and shifted, on a new grid, and original_from_moving.

    The new grid is upright, encloses the turned head, and has cubic voxels of the same volume.
    """
    head = foreground_points(original, at_most=original.array.size)
    centre = (head.min(axis=0) + head.max(axis=0)) / 2
    moving_from_original = np.eye(4)
    moving_from_original[:3, :3] = rotation
    moving_from_original[:3, 3] = centre + shift_mm - rotation @ centre
    turn = Affine(moving_from_original)
    low, high = _bounds(turn(head))
    spacing = float(np.prod(original.grid.spacing) ** (1 / 3))
    counts = np.ceil((high - low + 2 * MARGIN_MM) / spacing).astype(int) + 1
    world_from_index = np.diag([spacing, spacing, spacing, 1.0])
    world_from_index[:3, 3] = low - MARGIN_MM
    grid = Grid((int(counts[0]), int(counts[1]), int(counts[2])), world_from_index)
    return resample(original, turn.inverse, grid), turn.inverse


def random_turn(
    random: np.random.Generator, angle_deg: float, shift_mm: float = 20.0
) -> tuple[np.ndarray, np.ndarray]:
    """A rotation (3, 3) by angle_deg about a random axis, and a shift (3,) up to shift_mm."""
    direction = random.normal(size=3)
    shift = random.uniform(0, shift_mm) * direction / np.linalg.norm(direction)
    return axis_rotation(random.normal(size=3), angle_deg), shift


def smooth_warp(random: np.random.Generator, grid: Grid, length_px: float) -> Transform:
    """A random affine and a smooth deformation of that root-mean-square length, for a picture.

    The affine turns by up to 15 degrees, scales by up to 5 % and shifts by up to 3 % of the width.
    """
    width, height, _ = grid.size
    vectors = np.zeros((3, 1, WARP_LATTICE + 1, WARP_LATTICE + 1))
    for axis in range(2):
        nodes = random.normal(size=(WARP_NODES, WARP_NODES))
        vectors[axis, 0] = ndimage.zoom(nodes, (WARP_LATTICE + 1) / WARP_NODES, order=3)
    vectors *= length_px / np.sqrt((vectors**2).sum(axis=0).mean())
    lattice = np.diag([(width - 1) / WARP_LATTICE, (height - 1) / WARP_LATTICE, 1.0, 1.0])
    field = DisplacementField(vectors, Grid((WARP_LATTICE + 1, WARP_LATTICE + 1, 1), lattice))
    return Chain((field, _random_affine(random, grid)))


def _random_affine(random: np.random.Generator, grid: Grid) -> Affine:
    linear = axis_rotation(np.array([0, 0, 1]), random.uniform(-15, 15))
    linear[:2, :2] *= random.uniform(0.95, 1.05)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = grid.centre - linear @ grid.centre
    matrix[:2, 3] += random.uniform(-0.03, 0.03, size=2) * grid.size[0]
    return Affine(matrix)


def relit(random: np.random.Generator, picture: Image) -> Image:
    """The picture (0 to 255) under another lamp: tilted illumination, other colours and noise."""
    channels, _, height, width = picture.array.shape
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    tilt = random.uniform(-0.3, 0.3, size=2)
    lamp = 1 + tilt[0] * x + tilt[1] * y - random.uniform(0, 0.3) * (x**2 + y**2)
    gains = random.uniform(0.7, 1.2, size=(channels, 1, 1, 1))
    bright = (picture.array / 255.0) ** random.uniform(0.7, 1.4) * gains * lamp
    noisy = 255 * bright + random.normal(0, 3, size=bright.shape) * (picture.array > 0)
    return Image(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), picture.grid)


def foreground(image: Image) -> np.ndarray:
    """(k, j, i) bool: the largest bright region with its holes filled: head, brain or eye.

    Bright means more than a tenth of the 99th percentile of what is not zero.
    """
    grey = image.grey()
    lit = grey[grey > 0]
    if lit.size == 0:
        return np.zeros(grey.shape, dtype=bool)
    bright = grey > 0.1 * np.percentile(lit, 99)
    mask = ndimage.binary_opening(bright[0])[None] if image.is_picture else (
        ndimage.binary_opening(bright)
    )
    regions, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(grey.shape, dtype=bool)
    largest = regions == 1 + np.argmax(np.bincount(regions.ravel())[1:])
    if image.is_picture:
        return np.asarray(ndimage.binary_fill_holes(largest[0])[None])
    return np.asarray(ndimage.binary_fill_holes(largest))


def foreground_points(image: Image, at_most: int = TRUTH_POINTS) -> np.ndarray:
    """World points (n, 3) of evenly chosen foreground voxels, at most about at_most of them."""
    k, j, i = np.nonzero(foreground(image))
    step = max(1, len(i) // at_most)
    return image.grid.world(np.stack([i, j, k], axis=1)[::step])


def inside(mask: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """(n,) bool: whether each world point lies in the mask (k, j, i) on grid."""
    index = np.rint(grid.index(points)).astype(int)
    within = ((index >= 0) & (index < np.array(grid.size))).all(axis=1)
    i, j, k = np.where(within[:, None], index, 0).T
    found: np.ndarray = within & mask[k, j, i]
    return found


def _bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return points.min(axis=0), points.max(axis=0)
