"""The mosaic itself: views on one canvas, weighed by how deep inside they show a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine, Transform
from retreg_server.registration.model import Stages
from retreg_server.reporting.views import coarser, seen, shrunk, views

STRIP = 1 << 21  # pixels that are blended at a time
EXACT = 0.02  # pixels of a view to which it is placed
SHARPNESS = 3  # power of the depth: high, so that the view that shows a place best prevails
SMALL = 400  # pixels of the longer side in which views are made equally bright
USUAL_GAIN = 0.3  # deviation of the logarithm of the brightness of views
GREY_ROOM = 10.0  # times that of a grey view, which takes the hue of its neighbours
ALIKE = 0.02  # and of what two of them show at one place
SPARSE = 16  # pixels from one to the next
DARK = 0.02  # of the range: too dark to tell the gain


@dataclass(frozen=True, eq=False)
class Layer:
    """A view on the canvas.

    image: in the type and channels of the mosaic. depth: from 0 at the rim of what it shows to 1
    in the middle, on a coarser grid. transform: from the canvas. rim: points (n, 3) LPS mm of the
    canvas around what it shows.
    """

    image: Image
    depth: Image
    transform: Transform
    rim: np.ndarray


def depth_of(image: Image) -> Image:
    """How deep inside the field of view each place is, from 0 at the rim to 1; (1, 1, h, w)."""
    grid = views(image.grid)[0]
    inside = np.pad(seen(image, Affine.identity(), grid).astype(np.uint8), 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return Image((depth / max(depth.max(), 1.0))[None, None].astype(np.float32), grid)


def rim_of(depth: Image) -> np.ndarray:
    """Points (n, 3) LPS mm around the largest part that a view shows, in their order."""
    inside = (depth.array[0, 0] > 0).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    pixels = max(outlines, key=cv2.contourArea)[:, 0]
    return depth.grid.world(np.pad(pixels.astype(np.float64), ((0, 0), (0, 1))))


def refuse_other_types(images: Sequence[Image], names: Sequence[str]) -> None:
    """Raise InputError for pictures, by their names, of other numbers than 8 or 16 bits."""
    for image, name in zip(images, names, strict=True):
        if image.array.dtype not in (np.uint8, np.uint16):
            raise InputError(
                f"{name} holds {image.array.dtype} numbers; a mosaic is made of pictures of 8 or "
                "16 bits, so save it as one."
            )


def alike(images: Sequence[Image]) -> list[Image]:
    """The pictures in one type and as many channels: colour, or 16 bits, where one has them."""
    is_deep = any(image.array.dtype == np.uint16 for image in images)
    channels = 3 if any(len(image.array) >= 3 for image in images) else 1
    return [_like(image, channels, is_deep) for image in images]


def _like(image: Image, channels: int, is_deep: bool) -> Image:
    array = image.array[: 3 if len(image.array) >= 3 else 1]
    if len(array) < channels:
        array = np.repeat(array, channels, axis=0)
    if is_deep and array.dtype == np.uint8:
        array = array.astype(np.uint16) * 257
    return Image(array, image.grid)


def gains_of(layers: Sequence[Layer], canvas: Grid) -> np.ndarray:
    """(views, channels) by which views are multiplied so that they look alike where they overlap.

    Least squares of the logarithms, with gains near 1 (Brown and Lowe 2007, section 6).
    """
    small = coarser(canvas, SMALL)
    shown, dark = [], DARK * np.iinfo(layers[0].image.array.dtype).max
    for layer in layers:
        values = resample(shrunk(layer.image, SMALL), layer.transform, small).array[:, 0]
        depth = resample(layer.depth, layer.transform, small, fill=0).array[0, 0]
        shown.append((np.log(np.maximum(values, dark, dtype=np.float32)), depth))
    count = len(layers)
    normal = np.zeros((count, count))
    right = np.zeros((count, len(layers[0].image.array)))
    for i, j in combinations(range(count), 2):
        depth = np.minimum(shown[i][1], shown[j][1])
        share = float(depth.sum()) / small.size[0] / small.size[1]
        if share > 0:
            difference = (depth * (shown[j][0] - shown[i][0])).sum(axis=(1, 2)) / depth.sum()
            normal[[i, j], [i, j]] += share / ALIKE**2
            normal[[i, j], [j, i]] -= share / ALIKE**2
            right[i] += share * difference / ALIKE**2
            right[j] -= share * difference / ALIKE**2
    usual = [USUAL_GAIN * (GREY_ROOM if _is_grey(layer.image) else 1.0) for layer in layers]
    normal += np.diag(1 / np.square(usual))
    gains: np.ndarray = np.exp(np.linalg.solve(normal, right))
    return gains


def _is_grey(image: Image) -> bool:
    """Whether the channels show the same, looked at here and there."""
    some = image.array[:, 0, ::SPARSE, ::SPARSE]
    return bool((some == some[0]).all())


def blended(
    layers: Sequence[Layer], gains: np.ndarray, canvas: Grid, stages: Stages
) -> tuple[Image, Image]:
    """The mosaic on the canvas, and where it shows something: 255, elsewhere 0."""
    kind = layers[0].image.array.dtype
    picture = np.zeros((gains.shape[1], *canvas.shape), kind)
    mask = np.zeros((1, *canvas.shape), np.uint8)
    boxes = [_box(layer, canvas) for layer in layers]
    rows = max(1, STRIP // canvas.size[0])
    for top in range(0, canvas.size[1], rows):
        stages.at(top / canvas.size[1])
        strip = slice(top, min(top + rows, canvas.size[1]))
        total = np.zeros((gains.shape[1], strip.stop - top, canvas.size[0]), np.float32)
        weights = np.zeros(total.shape[1:], np.float32)
        for layer, gain, (left, low, right, high) in zip(layers, gains, boxes, strict=True):
            part = max(low, strip.start), min(high, strip.stop)
            if part[0] < part[1]:
                place = slice(part[0] - top, part[1] - top), slice(left, right)
                values, depth = _seen_in(layer, _window(canvas, (left, part[0], right, part[1])))
                weight = depth**SHARPNESS
                weights[place] += weight
                total[:, *place] += weight * gain[:, None, None] * values
        shown = weights > 0
        total /= np.where(shown, weights, 1)
        picture[:, 0, strip] = np.clip(np.rint(total), 0, np.iinfo(kind).max).astype(kind)
        mask[0, 0, strip] = 255 * shown
    return Image(picture, canvas), Image(mask, canvas)


def _seen_in(layer: Layer, window: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The values (channels, rows, columns) of a view in a part of the canvas, and its depth."""
    exact_mm = EXACT * float(layer.image.grid.spacing[:2].min())
    depth = resample(layer.depth, layer.transform, window, fill=0).array[0, 0]
    values = resample(layer.image, layer.transform, window, tolerance_mm=exact_mm)
    return values.array[:, 0], depth


def _box(layer: Layer, canvas: Grid) -> tuple[int, int, int, int]:
    """The first column and row of the canvas that a view reaches, and those after its last."""
    index = canvas.index(layer.rim)[:, :2]
    low = np.clip(np.floor(index.min(axis=0)) - 1, 0, canvas.size[:2]).astype(int)
    high = np.clip(np.ceil(index.max(axis=0)) + 2, 0, canvas.size[:2]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _window(canvas: Grid, box: tuple[int, int, int, int]) -> Grid:
    """The part of the canvas in a box."""
    left, top, right, bottom = box
    shift = np.eye(4)
    shift[:2, 3] = left, top
    return Grid((right - left, bottom - top, 1), canvas.world_from_index @ shift)
