"""Pictures of the retina as arrays of one common scale, and the way back to the world.

Inside the fundus models a point is (x, y) in pixels of such an array, and a linear map between
two of them is a (3, 3) matrix `moving_from_fixed`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from retreg.errors import EmptyImageError
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg_server.registration.numerics.percentiles import percentile
from retreg_server.registration.preprocessing.field_of_view import field_of_view

THUMBNAIL = 256
SMALLEST = 32  # pixels along each side; in fewer, noise was seen to agree with noise
GREEN = 1
FLAT_CHANNEL = 0.15  # a channel with less than this share of the widest contrast is unused
EMPTY_CHANNEL = 1e-3
MOSTLY = 0.9  # of a pixel that must count under a mask
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with square pixels, cut and scaled for the work.

    grey: (h, w) float32, about 0 to 1. inside: (h, w) bool, the field of view.
    world_from_pixel: (4, 4) to LPS mm; the pixel (x, y) is (x, y, 0, 1), the third column is a
    unit normal of the plane.
    """

    grey: np.ndarray
    inside: np.ndarray
    world_from_pixel: np.ndarray

    @property
    def is_mirrored(self) -> bool:
        """Whether the pixels show the world as a mirror does: a left-handed geometry."""
        return bool(np.linalg.det(self.world_from_pixel[:3, :3]) < 0)

    @property
    def mirrored(self) -> Picture:
        """The same content of the world with columns in the opposite order."""
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = self.grey.shape[1] - 1
        grey, inside = np.ascontiguousarray(self.grey[:, ::-1]), self.inside[:, ::-1].copy()
        return Picture(grey, inside, self.world_from_pixel @ flip)

    def views_beside(self, other: Picture) -> list[Picture]:
        """How the eye may lie in these pixels beside those of another picture: as they are and,
        when only one of the geometries is left-handed, mirrored."""
        return [self] if self.is_mirrored == other.is_mirrored else [self, self.mirrored]

    def world(self, points: np.ndarray) -> np.ndarray:
        """LPS mm (n, 3) of pixel points (n, 2)."""
        return apply_matrix(self.world_from_pixel, np.pad(points, ((0, 0), (0, 1))))

    def pixels(self, world: np.ndarray) -> np.ndarray:
        """Pixel points (n, 2) of LPS mm points (n, 3), dropped onto the plane of the picture."""
        return apply_matrix(np.linalg.inv(self.world_from_pixel), world)[:, :2]


def whole_picture(image: Image, role: str, longer_side: int) -> Picture:
    """All of the picture, with at most longer_side pixels on its longer side.

    Raises EmptyImageError when the picture is blank; role names it in the message.
    """
    image = _from_the_front(_without_uncounted(image))
    width, height = _square_size(image.grid, *image.grid.size[:2])
    shrink = min(1.0, longer_side / max(width, height))
    box = (0, 0, *image.grid.size[:2])
    channel = _used_channels(image.array)[0]
    picture = _cut(image, channel, role, box, shrink * width, shrink * height)
    return replace(picture, inside=_share_counted(image, picture.grey.shape) > MOSTLY)


def retina_picture(image: Image, role: str, diameter: int) -> Picture:
    """The retina alone, its field of view scaled to a longer side of diameter pixels.

    Raises EmptyImageError when the picture is blank or too small to show vessels; role names it in
    the message.
    """
    return StoredPicture(image, role).retina(diameter)


def too_small(width: int, height: int) -> EmptyImageError:
    """What is said of a picture in which nothing can be recognised."""
    return EmptyImageError(
        f"A picture of {width} by {height} pixels shows too little; give a larger one."
    )


class StoredPicture:
    """A picture as it was given, with what every look at it needs found once.

    role: names it in messages. Whatever is asked raises EmptyImageError when the picture is blank.
    """

    def __init__(self, image: Image, role: str) -> None:
        self.image, self.role = image, role

    @cached_property
    def _counting(self) -> Image:
        return _without_uncounted(self.image)

    @cached_property
    def _from_the_front(self) -> StoredPicture:
        image = _from_the_front(self._counting)
        return self if image is self._counting else StoredPicture(image, self.role)

    @cached_property
    def _channels(self) -> list[np.ndarray]:
        return _used_channels(self._counting.array)

    @cached_property
    def _inside(self) -> np.ndarray:
        """The field of view (h, w) bool of a thumbnail."""
        shape = _shrunk(self.image.grid, THUMBNAIL)
        brightest = np.max([_rescaled(colour, shape) for colour in self._channels], axis=0)
        return field_of_view(_normalised(brightest, self.role))

    def thumbnail(self, longer_side: int) -> tuple[np.ndarray, np.ndarray]:
        """All of it, (h, w) float32 from 0 to 1, and its field of view (h, w) bool."""
        shape = _shrunk(self.image.grid, longer_side)
        inside = _rescaled(self._inside.astype(np.float32), shape) > 0.5
        grey = _normalised(_rescaled(self._channels[0], shape), self.role)
        return grey, inside & (_share_counted(self._counting, shape) > MOSTLY)

    def retina(self, diameter: int) -> Picture:
        """See retina_picture."""
        size = self.image.grid.size[:2]
        if min(size) < SMALLEST:
            raise too_small(*size)
        front = self._from_the_front
        image = front._counting
        box = _bounding_box(front._inside, size)
        width, height = _square_size(image.grid, box[2] - box[0], box[3] - box[1])
        scale = diameter / max(width, height)
        picture = _cut(image, front._channels[0], self.role, box, scale * width, scale * height)
        shown = _rescaled(_cropped_thumbnail(front._inside, size, box), picture.grey.shape)
        x0, y0, x1, y1 = box
        counted = _share_counted(image, picture.grey.shape, (slice(y0, y1), slice(x0, x1)))
        return replace(picture, inside=(shown > 0.5) & (counted > MOSTLY))


def _shrunk(grid: Grid, longer_side: int) -> tuple[int, int]:
    """The shape (h, w) of the picture with at most longer_side pixels on its longer side."""
    width, height = grid.size[:2]
    shrink = min(1.0, longer_side / max(width, height))
    return max(8, round(shrink * height)), max(8, round(shrink * width))


def _without_uncounted(image: Image) -> Image:
    """The picture with the median of what counts in place of what does not.

    What is painted over then has no say in the grey range and the field of view.
    """
    if image.counted is None:
        return image
    counted = image.counted[0]
    channels = [
        np.where(counted, grey, np.median(grey[counted]).astype(grey.dtype))
        for grey in image.array[:, 0]
    ]
    return replace(image, array=np.stack(channels)[:, None])


def _share_counted(
    image: Image, shape: tuple[int, ...], part: tuple[slice, ...] = ()
) -> np.ndarray:
    """How much of each pixel counts, (h, w) of a part (rows, columns) of the picture."""
    if image.counted is None:
        return np.ones(shape, np.float32)
    counted: np.ndarray = cv2.resize(
        image.counted[0][part].astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA
    )
    return counted


def _from_the_front(image: Image) -> Image:
    """The same picture with axes i, j, k that are right-handed in the world.

    The models never mirror a picture, so that one stored mirror-inverted must be turned back.
    """
    matrix = image.grid.world_from_index
    if np.linalg.det(matrix[:3, :3]) > 0:
        return image
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = image.grid.size[0] - 1
    counted = None if image.counted is None else image.counted[..., ::-1]
    grid = Grid(image.grid.size, matrix @ flip)
    return replace(image, array=image.array[..., ::-1], grid=grid, counted=counted)


def _cut(
    image: Image, channel: np.ndarray, role: str, box: Box, width: float, height: float
) -> Picture:
    """The box (x0, y0, x1, y1) of a channel (h, w) of the picture, at about width and height."""
    x0, y0, x1, y1 = box
    grey = _rescaled(channel[y0:y1, x0:x1], (round(height), round(width)))
    scale_x, scale_y = (x1 - x0) / grey.shape[1], (y1 - y0) / grey.shape[0]
    index_from_pixel = np.diag([scale_x, scale_y, 1.0, 1.0])
    index_from_pixel[:2, 3] = x0 + (scale_x - 1) / 2, y0 + (scale_y - 1) / 2
    matrix = image.grid.world_from_index @ index_from_pixel
    normal = np.cross(matrix[:3, 0], matrix[:3, 1])
    matrix[:3, 2] = normal * np.sign(normal @ matrix[:3, 2]) / np.linalg.norm(normal)
    return Picture(_normalised(grey, role), np.ones(grey.shape, bool), matrix)


def _used_channels(array: np.ndarray) -> list[np.ndarray]:
    """The channels (h, w) that show something, first the one in which vessels show best.

    That is green, unless it is empty: infrared and red-free pictures are often stored as colour
    with one or two used channels. Of two channels the second may be the opacity, so that it counts
    only where the first is empty.
    """
    colours = array[:3, 0]  # a fourth would be the opacity
    step = max(1, max(colours.shape[1:]) // THUMBNAIL)
    low, high = np.percentile(_finite(colours[:, ::step, ::step]), (2, 98), axis=(1, 2))
    spread = high - low
    if len(colours) < 3:
        first_is_used = spread[0] >= EMPTY_CHANNEL * spread.max()
        return [colours[0 if first_is_used else 1]]
    used = [n for n in range(3) if spread[n] >= FLAT_CHANNEL * spread.max()]
    best = GREEN if GREEN in used else int(np.argmax(spread))
    return [colours[n] for n in sorted(used, key=lambda n: n != best)]


def _rescaled(grey: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array as float32 at shape (h, w), averaged where it shrinks."""
    if grey.dtype not in (np.uint8, np.uint16):
        grey = _finite(grey)
    if min(grey.shape) < 8:
        raise too_small(grey.shape[1], grey.shape[0])
    shrinks = shape[0] * shape[1] < grey.shape[0] * grey.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    rescaled: np.ndarray = cv2.resize(grey, (shape[1], shape[0]), interpolation=method)
    return rescaled.astype(np.float32)


def _finite(values: np.ndarray) -> np.ndarray:
    """The values as float32, with 0 for what is no number."""
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _normalised(grey: np.ndarray, role: str) -> np.ndarray:
    low, high = (percentile(grey, q) for q in (0.1, 99.9))
    if not high - low > 1e-6 * max(abs(low), abs(high)):
        raise EmptyImageError(
            f"The {role} picture is blank: nearly all its pixels have the same value; give a "
            "picture that shows retina."
        )
    normalised: np.ndarray = np.clip((grey - low) / (high - low), 0, 1)
    return normalised.astype(np.float32)


def _square_size(grid: Grid, width: float, height: float) -> tuple[float, float]:
    """Width and height in units of the smaller pixel spacing."""
    spacing = grid.spacing[:2] / grid.spacing[:2].min()
    return float(width * spacing[0]), float(height * spacing[1])


def _bounding_box(inside: np.ndarray, size: tuple[int, ...]) -> Box:
    """The box of the mask of a thumbnail in pixels of the picture of that size (w, h)."""
    edges = []
    for axis, length in ((1, size[0]), (0, size[1])):
        used = np.flatnonzero(inside.any(axis=1 - axis))
        scale = length / inside.shape[axis]
        edges.append((int(used[0] * scale), int(np.ceil((used[-1] + 1) * scale))))
    (x0, x1), (y0, y1) = edges
    return x0, y0, x1, y1


def _cropped_thumbnail(inside: np.ndarray, size: tuple[int, ...], box: Box) -> np.ndarray:
    """The part of a thumbnail's mask that shows the box, as float32."""
    scale_x, scale_y = inside.shape[1] / size[0], inside.shape[0] / size[1]
    rows = slice(int(box[1] * scale_y), int(np.ceil(box[3] * scale_y)))
    columns = slice(int(box[0] * scale_x), int(np.ceil(box[2] * scale_x)))
    return inside[rows, columns].astype(np.float32)
