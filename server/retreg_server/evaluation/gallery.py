"""Checkerboards of the fixed and the moving image, before and after registration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from scipy import ndimage

from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine, Transform
from retreg_server.evaluation.cases import Pair
from retreg_server.evaluation.known_truth import foreground

PICTURE_PIXELS = 640
SLICE_PIXELS = 320
FIELDS = 8
JPEG_QUALITY = 85


def save_checkerboard(path: Path, pair: Pair, transform: Transform) -> None:
    """Write the checkerboard as a JPEG..

    A picture is shown whole, a volume by three slices through the middle of the fixed head.
    """
    fixed = _shrunk_to(pair.fixed, PICTURE_PIXELS if pair.fixed.is_picture else SLICE_PIXELS)
    moving = _shrunk_to(pair.moving, PICTURE_PIXELS if pair.moving.is_picture else SLICE_PIXELS)
    ranges = _intensity_range(fixed), _intensity_range(moving)
    boards = []
    for plane in _planes(fixed):
        shown = (
            _display(resample(fixed, Affine.identity(), plane), ranges[0]),
            _display(resample(moving, transform, plane), ranges[1]),
        )
        boards.append(_checkerboard(*shown))
    PIL.Image.fromarray(np.concatenate(boards, axis=1)).save(path, quality=JPEG_QUALITY)


def _shrunk_to(image: Image, pixels: int) -> Image:
    """The image averaged over blocks of voxels so that no axis is much longer than pixels."""
    factors = np.maximum(1, np.array(image.grid.size) // pixels)
    if (factors == 1).all():
        return image
    i, j, k = (int(n) for n in np.array(image.grid.size) // factors)
    fi, fj, fk = (int(f) for f in factors)
    part = image.array[:, : k * fk, : j * fj, : i * fi].astype(np.float32)
    blocks = part.reshape(len(part), k, fk, j, fj, i, fi).mean(axis=(2, 4, 6))
    to_index = np.diag([*factors, 1.0])
    to_index[:3, 3] = (factors - 1) / 2
    return Image(blocks, Grid((i, j, k), image.grid.world_from_index @ to_index))


def _planes(fixed: Image) -> list[Grid]:
    """The grids to show: the picture's own, or three planes along the world axes."""
    if fixed.is_picture:
        return [fixed.grid]
    index = np.argwhere(foreground(fixed))[:, ::-1]
    if len(index) == 0:
        index = np.array([[0, 0, 0], np.array(fixed.grid.size) - 1])
    corners = np.array(np.meshgrid(*zip(index.min(axis=0), index.max(axis=0), strict=True)))
    world = fixed.grid.world(corners.reshape(3, -1).T)
    low, high = world.min(axis=0), world.max(axis=0)
    spacing = float((high - low).max()) / SLICE_PIXELS
    return [_plane(axes, (low + high) / 2, spacing) for axes in ((0, 1, 2), (0, 2, 1), (1, 2, 0))]


def _plane(axes: tuple[int, int, int], centre: np.ndarray, spacing: float) -> Grid:
    """A square plane through centre; axes: the world axes of its columns, rows and normal."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for column, axis in enumerate(axes):
        matrix[axis, column] = spacing
    if axes[1] == 2:
        matrix[2, 1] *= -1  # the head is up in the pictures
    middle = np.array([[(SLICE_PIXELS - 1) / 2, (SLICE_PIXELS - 1) / 2, 0.0]])
    matrix[:3, 3] = centre - apply_matrix(matrix, middle)[0]
    return Grid((SLICE_PIXELS, SLICE_PIXELS, 1), matrix)


def _intensity_range(image: Image) -> tuple[float, float]:
    grey = image.grey()
    lit = grey[grey > 0]
    if lit.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(lit, (1, 99.5)))
    return (low, high) if high > low else (0.0, high)


def _display(plane: Image, intensities: tuple[float, float]) -> np.ndarray:
    """(rows, columns, 3) bytes."""
    low, high = intensities
    scaled = np.clip((plane.array[:3, 0].astype(np.float32) - low) / (high - low), 0, 1)
    colours = np.broadcast_to(scaled, (3, *scaled.shape[1:])) if len(scaled) == 1 else scaled
    return np.rint(255 * np.moveaxis(colours, 0, -1)).astype(np.uint8)


def _checkerboard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    rows, columns = first.shape[:2]
    side = max(rows, columns) / FIELDS
    y, x = np.ogrid[:rows, :columns]
    from_second = ((y // side + x // side) % 2 == 1)[..., None]
    board: np.ndarray = np.where(from_second, second, first)
    edges = ndimage.morphological_gradient(from_second[..., 0].astype(np.uint8), size=2) > 0
    board[edges] = board[edges] // 2 + np.array([0, 60, 90], dtype=np.uint8)
    return board
