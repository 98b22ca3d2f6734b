"""Images of one eye or head in a row of visits: all on the canvas of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retreg.errors import OptionError
from retreg.files import read_image, read_transform
from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine, Transform
from retreg_server.batch.one_pair import outcome_in
from retreg_server.batch.pairs import Pair, named_pairs
from retreg_server.reporting.canvas import union_grid
from retreg_server.reporting.views import PANEL, shown, views

FEWEST = 2
SHOWN = ("accept", "check")  # what is fit to be looked at; a check is marked as one
DARK, CLOSED = 24, 15  # darker than tissue, unless there is tissue so many pixels around
RIM = 2  # pixels beside the rim, where a frame shows its surround as well
LOCAL = 0.06  # of the longer side, by which light changes slowly
_NO_CHANGE = 1e-6


@dataclass(frozen=True, eq=False)
class Frame:
    """One member on the canvas.

    rgb: (rows, columns, 3) uint8. seen: (rows, columns) bool, where it shows something.
    """

    name: str
    verdict: str
    rgb: np.ndarray
    seen: np.ndarray


def series_pairs(images: Sequence[Path], reference: int) -> list[Pair]:
    """Every image but that of the number reference, to be registered to it. Raises OptionError."""
    if len(images) < FEWEST:
        raise OptionError("A series needs two images at least; name them in their order.")
    fixed = images[reference]
    others = [path for n, path in enumerate(images) if n != reference]
    return named_pairs([Pair(path.name.partition(".")[0], fixed, path) for path in others])


def refuse_union_of_volumes(first: Path) -> None:
    """Raise OptionError unless the file holds a picture."""
    if not read_image(first).is_picture:
        raise OptionError("--canvas union belongs to pictures; leave it for volumes.")


def frames_of(
    images: Sequence[Path], reference: int, pairs: Sequence[Pair], out: Path, is_union: bool
) -> tuple[list[Frame], dict[str, str]]:
    """The members that were registered, in the order of images, and the reasons of the others.

    out: holds the folders of the pairs. is_union: whether the canvas holds all that any of them
    shows, or what the reference shows. A volume is shown in the axial plane through the middle of
    the reference. Raises FileError when a result cannot be read again.
    """
    canvas = read_image(images[reference])
    view = views(_union(canvas.grid, pairs, out) if is_union else canvas.grid)[0]
    left_out: dict[str, str] = {}
    frames = []
    waiting = iter(pairs)
    for n, path in enumerate(images):
        if n == reference:
            frames.append(_frame(canvas, Affine.identity(), view, path.name, "reference"))
            continue
        folder = out / next(waiting).name
        said: dict[str, Any] = outcome_in(folder)
        if said.get("verdict") not in SHOWN:
            left_out[path.name] = str(said.get("reason", "There is no result."))
            continue
        transform = read_transform(folder / "transform.h5")
        frames.append(_frame(read_image(path), transform, view, path.name, said["verdict"]))
    return frames, left_out


def _union(reference: Grid, pairs: Sequence[Pair], out: Path) -> Grid:
    """The pixels of the reference continued until they hold every picture that was registered."""
    corners = [reference.corners()]
    for folder in (out / pair.name for pair in pairs):
        said = outcome_in(folder)
        if said.get("verdict") in SHOWN:
            placed = said["moving"]
            moving = Grid(tuple(placed["size"]), np.array(placed["world_from_index"]))
            back = read_transform(folder / "transform_backward.h5")
            corners.append(back(moving.corners()))
    return union_grid(reference, np.concatenate(corners), PANEL)


def _frame(image: Image, transform: Transform, view: Grid, name: str, verdict: str) -> Frame:
    ones = Image(np.ones((1, *image.grid.shape), np.uint8), image.grid)
    within = resample(ones, transform, view, nearest=True, fill=0).array[0, 0] > 0
    rgb = shown(image, transform, view)
    lit = (rgb.max(axis=2) > DARK).astype(np.uint8)
    whole, rim = (np.ones((n, n), np.uint8) for n in (CLOSED, 2 * RIM + 1))
    closed = cv2.erode(cv2.dilate(lit, whole), whole, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    seen = cv2.erode(closed, rim, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    return Frame(name, verdict, rgb, within & seen)


def change_of(frames: Sequence[Frame]) -> np.ndarray:
    """How much each place changes over the frames, (rows, columns) float32, NaN where one is blind.

    The standard deviation over the frames of the grey values without their local mean, which
    differs with the light, divided by the deviation of the whole, which differs with the exposure.
    """
    both = np.all([frame.seen for frame in frames], axis=0)
    change = np.full(both.shape, np.nan, np.float32)
    if both.any():
        greys = [frame.rgb.mean(axis=2, dtype=np.float32) for frame in frames]
        even = np.stack([_even(grey, both) for grey in greys])
        even /= np.maximum(even.std(axis=1, keepdims=True), _NO_CHANGE)
        change[both] = even.std(axis=0)
    return change


def _even(grey: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The values (n,) of a picture (rows, columns) where they count, without their local mean."""
    weight, sigma = where.astype(np.float32), LOCAL * max(grey.shape)
    total, share = (cv2.GaussianBlur(x, (0, 0), sigma) for x in (grey * weight, weight))
    evened: np.ndarray = (grey - total / np.maximum(share, _NO_CHANGE))[where]
    return evened
