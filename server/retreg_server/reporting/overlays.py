"""Pictures to look at: checkerboards of fixed and moving, before and after, with keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.transforms import Affine, Transform
from retreg_server.reporting.sheet import Panel, Sign, ring, sheet
from retreg_server.reporting.views import PANEL, coarser, seen_of, shown, shown_part, shrunk, views

TILES = 8  # checkerboard fields along the longer side
DIMMED = 0.45  # brightness of what only one of the images shows
NEAR_MM = 20.0  # keypoints so far from a slice through a volume are drawn, the smaller the farther
INLIER, OUTLIER = (80, 255, 120), (255, 90, 70)
PLANES = ("axial", "coronal", "sagittal")
READ_IT = (
    "Checkerboard: fields of the fixed and of the moving image in turn, beginning with the fixed "
    "one. Where the two meet, vessels and edges run on from field to field without a step."
)


def write_png(path: Path, rgb: np.ndarray) -> None:
    """Write (rows, columns, 3) uint8, or (rows, columns), as PNG."""
    # As large as by Pillow with its least compression, and in half of its time.
    path.write_bytes(cv2.imencode(".png", rgb[..., ::-1] if rgb.ndim == 3 else rgb)[1])


def overlay(fixed: Image, moving: Image, result: RegistrationResult) -> np.ndarray:
    """Before and after as (rows, columns, 3) uint8, with keypoints, legend and verdict.

    A picture: checkerboards, two details in its own pixels where it had to be shrunk, and the
    keypoints in both images. A volume: checkerboards and keypoints in the axial, the coronal and
    the sagittal slice through its middle.
    """
    rows = (_picture_rows if fixed.is_picture else _volume_rows)(fixed, moving, result)
    quality = result.quality
    caption = [f"Verdict: {quality.verdict}. {quality.reason}", READ_IT]
    return sheet(rows, _legend(result.fixed_keypoints, fixed.is_picture), caption)


def thumbnail(fixed: Image, moving: Image, transform: Transform, longest: int) -> np.ndarray:
    """A checkerboard of at most longest pixels a side; of a volume the axial slice."""
    small = shrunk(fixed, longest), shrunk(moving, longest)
    return checkerboard(*small, transform, coarser(views(fixed.grid)[0], longest))


def checkerboard(
    fixed: Image,
    moving: Image,
    transform: Transform,
    view: Grid,
    parts: tuple[Image, Image] | None = None,
) -> np.ndarray:
    """Fields of fixed and of moving (through transform) in turn; (rows, columns, 3) uint8.

    Where only one of them shows something, that one is seen, dimmed. parts: where each of them
    shows something (see shown_part), if that is known.
    """
    one, other = parts or (shown_part(fixed), shown_part(moving))
    return _in_turn(
        _Layer.of(fixed, one, Affine.identity(), view), _Layer.of(moving, other, transform, view)
    )


class _Layer(NamedTuple):
    """An image in a plane, (rows, columns, 3) uint8, and where it shows something, (rows, columns)
    bool."""

    rgb: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, image: Image, part: Image, transform: Transform, view: Grid) -> _Layer:
        return cls(shown(image, transform, view), seen_of(part, transform, view))


def _in_turn(fixed: _Layer, moving: _Layer) -> np.ndarray:
    """The checkerboard of two layers."""
    (first, in_first), (second, in_second) = fixed, moving
    rows, columns = in_first.shape
    field = max(8, max(rows, columns) // TILES)
    i, j = np.arange(columns) // field, np.arange(rows) // field
    is_second = np.where(in_first & in_second, (i[None, :] + j[:, None]) % 2 == 1, in_second)
    board = np.where(is_second[..., None], second, first)
    lonely = in_first ^ in_second
    board[lonely] = (board[lonely] * DIMMED).astype(np.uint8)
    return board


def _picture_rows(fixed: Image, moving: Image, result: RegistrationResult) -> list[list[Panel]]:
    view = views(fixed.grid)[0]
    small = shrunk(fixed, PANEL), shrunk(moving, PANEL)
    parts = shown_part(fixed), shown_part(moving)
    _, before, after = _boards(small, parts, result.transform, view)
    rows = [[Panel("Before", before), Panel("After", after)]]
    if max(fixed.grid.size) > PANEL:
        windows = _windows(fixed, parts, result.transform, view)
        details = [checkerboard(fixed, moving, result.transform, at, parts) for at in windows]
        rows.append([Panel("After, a detail pixel by pixel", detail) for detail in details])
    both = (small[0], result.fixed_keypoints), (small[1], result.moving_keypoints)
    names = "Keypoints in the fixed image", "Keypoints in the moving image"
    panels = []
    for image, keypoints in both:
        whole = views(image.grid)[0]
        rgb = shown(image, Affine.identity(), whole)
        panels.append(_with_keypoints(rgb, whole, keypoints, is_slice=False))
    return [*rows, [Panel(*each) for each in zip(names, panels, strict=True)]]


def _volume_rows(fixed: Image, moving: Image, result: RegistrationResult) -> list[list[Panel]]:
    rows, parts = [], (shown_part(fixed), shown_part(moving))
    for plane, view in zip(PLANES, views(fixed.grid), strict=True):
        at_rest, before, after = _boards((fixed, moving), parts, result.transform, view)
        keypoints = _with_keypoints(at_rest, view, result.fixed_keypoints, is_slice=True)
        titles = f"Before, {plane}", f"After, {plane}", "Keypoints in the fixed image"
        panels = before, after, keypoints
        rows.append([Panel(*each) for each in zip(titles, panels, strict=True)])
    return rows


def _boards(
    images: tuple[Image, Image], parts: tuple[Image, Image], transform: Transform, view: Grid
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fixed image alone, and its checkerboards with the moving one before and after."""
    at_rest = _Layer.of(images[0], parts[0], Affine.identity(), view)
    before, after = (
        _in_turn(at_rest, _Layer.of(images[1], parts[1], by, view))
        for by in (Affine.identity(), transform)
    )
    return at_rest.rgb, before, after


def _windows(
    fixed: Image, parts: tuple[Image, Image], transform: Transform, view: Grid
) -> list[Grid]:
    """Two parts of the plane in the pixels of fixed: left and right in what both images show."""
    in_fixed, in_moving = parts
    together = seen_of(in_fixed, Affine.identity(), view) & seen_of(in_moving, transform, view)
    rows, columns = np.nonzero(together if together.any() else ~together)
    size = np.minimum(fixed.grid.size[:2], PANEL)
    windows = []
    for share in (25, 75):
        middle = [[np.percentile(columns, share), np.median(rows), 0.0]]
        centre = fixed.grid.index(view.world(np.array(middle)))[0, :2]
        corner = np.clip(np.rint(centre - size / 2), 0, fixed.grid.size[:2] - size)
        shift = np.eye(4)
        shift[:2, 3] = corner
        i, j = (int(n) for n in size)
        windows.append(Grid((i, j, 1), fixed.grid.world_from_index @ shift))
    return windows


def _with_keypoints(
    rgb: np.ndarray, view: Grid, keypoints: Keypoints, is_slice: bool
) -> np.ndarray:
    """What is shown in the plane of view with rings: green inliers, red outliers.

    In a slice of a volume those within NEAR_MM of it; a ring shrinks with the distance.
    """
    picture = Picture.fromarray(rgb)
    draw = ImageDraw.Draw(picture)
    depth_mm = float(np.linalg.norm(view.world_from_index[:3, 2]))
    index = view.index(keypoints.points)
    distances = np.abs(index[:, 2]) * depth_mm * is_slice
    for n in np.argsort(-distances):
        if distances[n] <= NEAR_MM:
            radius = 7 - 4 * distances[n] / NEAR_MM
            colour = INLIER if keypoints.inliers[n] else OUTLIER
            ring(draw, index[n, 0], index[n, 1], radius, colour)
    return np.asarray(picture)


def _legend(keypoints: Keypoints, is_picture: bool) -> list[Sign]:
    count, used = len(keypoints), int(keypoints.inliers.sum())
    signs = [Sign((90, 90, 90), "darker: only one of the images shows this place", is_ring=False)]
    if count:
        far = "" if is_picture else f"; smaller: up to {NEAR_MM:g} mm beside the slice"
        signs.append(Sign(INLIER, f"keypoint that the transform meets ({used} of {count}{far})"))
        signs.append(Sign(OUTLIER, f"keypoint that was left out ({count - used})"))
    return signs
