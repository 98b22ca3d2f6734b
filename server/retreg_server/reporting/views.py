"""What is cut out of images to be looked at: planes, grey values, and where there is something."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from retreg.background import fill_values
from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine, Transform
from retreg.voxel_displacements import voxel_map

PANEL = 900  # pixels of the longer side of a picture
SLICE = 480  # and of a slice through a volume
THUMBNAIL = 256  # pixels in which the field of view is found
RIM = np.ones((5, 5), np.uint8)  # of them
LONGEST = 32_000  # pixels of a side that OpenCV interpolates
LEVELS = 2_000_000  # voxels that tell the contrast of a volume
AIR = 0.06  # of the grey range of a volume; what is darker and reaches the frame is air


def views(grid: Grid) -> list[Grid]:
    """The planes in which an image is shown, as one-slice grids of at most PANEL pixels a side.

    A picture is shown as it is. A volume is cut through its middle along the axes of the patient:
    axial (left to the right, posterior down), coronal and sagittal (superior up).
    """
    if grid.is_plane:
        return [coarser(grid, PANEL)]
    corners = grid.corners()
    low, high = corners.min(axis=0), corners.max(axis=0)
    step = float(np.max(high - low)) / SLICE
    left, posterior, inferior = np.eye(3) * [1, 1, -1]
    planes = [(left, posterior), (left, inferior), (posterior, inferior)]
    return [_plane(right, down, low, high, step) for right, down in planes]


def shrunk(picture: Image, longest: int) -> Image:
    """The picture averaged over squares of pixels, as long as it stays larger than longest.

    A volume stays as it is. Skipped pixels would show as noise.
    """
    factor = max(picture.grid.size) // longest
    if not picture.is_picture or factor < 2 or picture.array.dtype.name not in _AVERAGED:
        return picture
    columns, rows = (n // factor for n in picture.grid.size[:2])
    if not (columns and rows):
        return picture
    size, whole = (columns, rows), (slice(rows * factor), slice(columns * factor))
    small = [cv2.resize(c[whole], size, interpolation=cv2.INTER_AREA) for c in picture.array[:, 0]]
    scale = np.diag([factor, factor, 1.0, 1.0])
    scale[:2, 3] = (factor - 1) / 2
    grid = Grid((columns, rows, 1), picture.grid.world_from_index @ scale)
    return Image(np.stack(small)[:, None], grid)


_AVERAGED = ("uint8", "uint16", "int16", "float32", "float64")  # which OpenCV knows


def shown(image: Image, transform: Transform, view: Grid) -> np.ndarray:
    """The image in the plane of view as (rows, columns, 3) uint8.

    A colour photograph is shown as it is, everything else with its contrast stretched.
    """
    if image.array.dtype == np.uint8 and len(image.array) >= 3:
        colours = replace(image, array=image.array[:3], counted=None)
        return np.moveaxis(_on_plane(colours, transform, view), 0, -1)
    picture = replace(image, array=image.array.astype(np.float32)) if image.is_picture else image
    low, high = np.percentile(_scanned(image), (1, 99.5))
    values = np.nan_to_num(_on_plane(picture, transform, view).astype(np.float32), nan=low)
    grey = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    rgb = grey[:3] if len(grey) >= 3 else np.repeat(grey[:1], 3, axis=0)
    return np.moveaxis(rgb, 0, -1).astype(np.uint8)


def seen(image: Image, transform: Transform, view: Grid) -> np.ndarray:
    """Where the image shows something in the plane of view, (rows, columns) bool."""
    return seen_of(shown_part(image), transform, view)


def shown_part(image: Image) -> Image:
    """1 where an image shows something, on a coarse grid of its own.

    A picture: inside its field of view, without the black around it. A volume: inside its grid.
    """
    return _field_of_view(image) if image.is_picture else _whole(image)


def seen_of(part: Image, transform: Transform, view: Grid) -> np.ndarray:
    """As seen, of an image whose shown_part is known: where it is as coarse as that of a picture,
    in no more pixels than it has."""
    coarse = coarser(view, THUMBNAIL)
    there = _on_plane(part, transform, coarse, fill=0)[0]
    full: np.ndarray = cv2.resize(there, view.size[:2], interpolation=cv2.INTER_LINEAR)
    return full > 0.5


def _on_plane(
    image: Image, transform: Transform, view: Grid, fill: float | None = None
) -> np.ndarray:
    """The image in the plane of view, (channels, rows, columns); see retreg.resample.

    A picture is interpolated by OpenCV, for the eye alone: in a tenth of the time.
    """
    if not image.is_picture or max(image.grid.size) > LONGEST:
        return resample(image, transform, view, fill=fill).array[:, 0]
    rows = slice(0, view.size[1])
    index = voxel_map(transform, view, image.grid.index_from_world).block(slice(0, 1), rows)
    x, y, _ = (np.ascontiguousarray(axis[0], np.float32) for axis in index)
    width, height = image.grid.size[:2]
    beyond = (x < -0.5) | (y < -0.5) | (x >= width - 0.5) | (y >= height - 0.5)
    layers = []
    for channel, outside in zip(image.array[:, 0], fill_values(image, fill), strict=True):
        layer = cv2.remap(channel, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        layer[beyond] = outside
        layers.append(layer)
    return np.stack(layers)


def object_in(image: Image, view: Grid) -> np.ndarray:
    """Where the object is in the plane of view, (rows, columns) bool: the field of view of a
    picture, a volume without the air around it."""
    if image.is_picture:
        return seen(image, Affine.identity(), view)
    from scipy import ndimage

    grey = shown(image, Affine.identity(), view)[..., 0]
    solid = ndimage.binary_opening(grey > AIR * 255, iterations=2)
    filled: np.ndarray = ndimage.binary_fill_holes(ndimage.binary_closing(solid, iterations=4))
    return filled


def _field_of_view(picture: Image) -> Image:
    """1 where a picture shows something, on a coarse grid of its own."""
    from retreg_server.registration.preprocessing.field_of_view import field_of_view

    small = shrunk(picture, THUMBNAIL)
    grey = small.grey()[0]
    low, high = np.percentile(grey, (0, 99.5))
    inside = field_of_view(np.clip((grey - low) / max(high - low, 1e-6), 0, 1).astype(np.float32))
    if not inside.all():  # the rim of the round field is dark already
        frame = cv2.BORDER_CONSTANT
        inside = cv2.erode(inside.astype(np.float32), RIM, borderType=frame, borderValue=1)
        inside = cv2.GaussianBlur(inside, (0, 0), 1.5)
    return Image(inside[None, None].astype(np.float32), small.grid)


def _whole(volume: Image) -> Image:
    """1 everywhere in the grid of a volume, in 2 x 2 x 2 voxels."""
    spread = np.diag([*(np.array(volume.grid.size) / 2), 1.0])
    spread[:3, 3] = (np.array(volume.grid.size) / 2 - 1) / 2
    grid = Grid((2, 2, 2), volume.grid.world_from_index @ spread)
    return Image(np.ones((1, 2, 2, 2), np.float32), grid)


def _scanned(image: Image) -> np.ndarray:
    """Grey values (k, j, i), of a volume some of them and without the padding of scanners."""
    if image.is_picture:
        return np.nan_to_num(image.grey())
    from retreg_server.registration.numerics.padding import scanned  # needs SciPy

    step = max(1, round((np.prod(image.grid.size) / LEVELS) ** (1 / 3)))
    some = np.ascontiguousarray(image.array[:, ::step, ::step, ::step])
    return scanned(Image(some, Grid(some.shape[:0:-1], np.eye(4))))


def coarser(grid: Grid, longest: int) -> Grid:
    """The plane in so many pixels of its longer side at most."""
    step = max(grid.size) / min(longest, max(grid.size))
    scale = np.diag([step, step, 1, 1])
    scale[:2, 3] = (step - 1) / 2
    i, j = (max(1, round(n / step)) for n in grid.size[:2])
    return Grid((i, j, 1), grid.world_from_index @ scale)


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
