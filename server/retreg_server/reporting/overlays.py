"""Pictures to look at: checkerboards of fixed and moving, before and after, with keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.resample import resample
from retreg.transforms import Affine, Transform

PANEL = 640  # pixels of the longer side of a picture
SLICE = 400  # and of a slice through a volume
TILES = 8  # checkerboard fields along the longer side
INLIER, OUTLIER = (80, 255, 120), (255, 80, 60)


def write_png(path: Path, rgb: np.ndarray) -> None:
    """Write (rows, columns, 3) uint8, or (rows, columns), as PNG."""
    # A fifteenth larger than with the usual compression, and in two fifths of its time.
    Picture.fromarray(rgb).save(path, format="PNG", compress_level=1)


def overlay(fixed: Image, moving: Image, result: RegistrationResult) -> np.ndarray:
    """Before (left) and after (right) as (rows, columns, 3) uint8, with the keypoints.

    A picture gets one row of checkerboards and one of the keypoints in both images; a volume one
    row each for the axial, coronal and sagittal slice through its middle.
    """
    rows = []
    for view in views(fixed.grid):
        before = checkerboard(fixed, moving, Affine.identity(), view)
        after = checkerboard(fixed, moving, result.transform, view)
        if not fixed.is_picture:
            draw_keypoints(after, view, result.fixed_keypoints)
        rows.append([before, after])
    if fixed.is_picture:
        rows.append(
            [
                _with_keypoints(fixed, result.fixed_keypoints),
                _with_keypoints(moving, result.moving_keypoints),
            ]
        )
    return _titled(_mosaic(rows))


def views(grid: Grid) -> list[Grid]:
    """The planes in which an image is shown, as one-slice grids of at most PANEL pixels a side.

    A picture is shown as it is. A volume is cut through its middle along the axes of the patient:
    axial (left to the right, posterior down), coronal and sagittal (superior up).
    """
    if grid.is_plane:
        step = max(grid.size) / min(PANEL, max(grid.size))
        scale = np.diag([step, step, 1, 1])
        scale[:2, 3] = (step - 1) / 2
        i, j = (max(1, round(n / step)) for n in grid.size[:2])
        return [Grid((i, j, 1), grid.world_from_index @ scale)]
    corners = grid.corners()
    low, high = corners.min(axis=0), corners.max(axis=0)
    step = float(np.max(high - low)) / SLICE
    left, posterior, inferior = np.eye(3) * [1, 1, -1]
    planes = [(left, posterior), (left, inferior), (posterior, inferior)]
    return [_plane(right, down, low, high, step) for right, down in planes]


def checkerboard(fixed: Image, moving: Image, transform: Transform, view: Grid) -> np.ndarray:
    """Fields of fixed and of moving (through transform) in turn; (rows, columns, 3) uint8."""
    fixed_view, warped = shown(fixed, Affine.identity(), view), shown(moving, transform, view)
    field = max(8, max(view.size) // TILES)
    i, j = np.arange(view.size[0]) // field, np.arange(view.size[1]) // field
    odd = (i[None, :] + j[:, None]) % 2 == 1
    return np.where(odd[..., None], warped, fixed_view)


def shown(image: Image, transform: Transform, view: Grid) -> np.ndarray:
    """The image in the plane of view as (rows, columns, 3) uint8.

    A colour photograph is shown as it is, everything else with its contrast stretched.
    """
    values = resample(_as_float(image), transform, view).array[:, 0]
    if image.array.dtype == np.uint8 and len(values) >= 3:
        return np.moveaxis(values[:3], 0, -1).astype(np.uint8)
    low, high = np.percentile(_scanned(image)[:: max(1, image.grid.size[2] // 32)], (1, 99.5))
    values = np.nan_to_num(values, nan=low)
    grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    rgb = grey[:3] if len(grey) >= 3 else np.repeat(grey[:1], 3, axis=0)
    return np.moveaxis(rgb, 0, -1).astype(np.uint8)


def _scanned(image: Image) -> np.ndarray:
    """The grey values (k, j, i), without the padding that scanners add to volumes."""
    if image.is_picture:
        return np.nan_to_num(image.grey())
    from retreg_server.registration.numerics.padding import scanned  # needs SciPy

    return scanned(image)


def draw_keypoints(panel: np.ndarray, view: Grid, keypoints: Keypoints) -> None:
    """Draw into panel the keypoints within 3 pixels of its plane: green inliers, red outliers."""
    picture = Picture.fromarray(panel)
    canvas = ImageDraw.Draw(picture)
    for (x, y, depth), inlier in zip(view.index(keypoints.points), keypoints.inliers, strict=True):
        if abs(depth) <= 3:
            colour = INLIER if inlier else OUTLIER
            canvas.ellipse((x - 3, y - 3, x + 3, y + 3), outline=colour, width=2)
    panel[:] = np.asarray(picture)


def _with_keypoints(image: Image, keypoints: Keypoints) -> np.ndarray:
    view = views(image.grid)[0]
    panel = shown(image, Affine.identity(), view)
    draw_keypoints(panel, view, keypoints)
    return panel


def _as_float(image: Image) -> Image:
    return Image(image.array.astype(np.float32), image.grid)


def _plane(
    right: np.ndarray, down: np.ndarray, low: np.ndarray, high: np.ndarray, step: float
) -> Grid:
    """A one-slice grid through the middle of the box from low to high."""
    extent = high - low
    columns, rows = (max(2, int(np.ceil(abs(axis @ extent) / step))) for axis in (right, down))
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = (
        right * step, down * step, np.cross(right, down) * step
    )
    middle = (low + high) / 2
    matrix[:3, 3] = middle - matrix[:3, :2] @ [(columns - 1) / 2, (rows - 1) / 2]
    return Grid((columns, rows, 1), matrix)


def _mosaic(rows: list[list[np.ndarray]], gap: int = 8) -> np.ndarray:
    """Panels side by side on black, each cell as large as the largest panel of its column/row."""
    widths = [max(row[c].shape[1] for row in rows) for c in range(2)]
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    canvas = np.zeros((sum(heights) + gap * (len(rows) - 1), sum(widths) + gap, 3), np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for panel, left in zip(row, (0, widths[0] + gap), strict=True):
            canvas[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
        top += height + gap
    return canvas


def _titled(canvas: np.ndarray, height: int = 24) -> np.ndarray:
    """The mosaic under a line that names its two columns."""
    picture = Picture.fromarray(np.pad(canvas, ((height, 0), (0, 0), (0, 0))))
    draw = ImageDraw.Draw(picture)
    draw.text((6, 6), "before", fill=(255, 255, 255))
    draw.text((canvas.shape[1] // 2 + 10, 6), "after", fill=(255, 255, 255))
    return np.asarray(picture)
