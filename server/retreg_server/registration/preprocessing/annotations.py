"""What two pictures of the retina share to the pixel and what is no anatomy: grids, rulers, scan
rasters, captions, watermarks, dirt on the lens, reflexes.

No kind of annotation is looked for by its shape or colour. Two pictures with such a layer consist
of two layers: one that coincides to the pixel, strokes and all, and the vessels, which do not meet
there. Two pictures of one eye in the same position coincide as well, but what is left beside their
coinciding strokes still meets, or nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import NamedTuple

import cv2
import numpy as np

from retreg.image import Image
from retreg_server.registration.preprocessing.retina_picture import StoredPicture
from retreg_server.registration.preprocessing.tile_agreement import NEAR, tile_agreement
from retreg_server.registration.preprocessing.vesselness import VesselMaps, eroded, vessel_maps

SIZE = 448  # pixels on the longer side of the pictures that are compared
ASPECT = 0.02  # by which the shapes of two exports of one viewer may differ
Band = tuple[float, float, float]  # inner and outer sigma of what coincides, sigma of the window
NOISE = 0.006  # of the grey range: strokes fainter than this are not compared
COINCIDING, ALIKE = 0.85, 0.6  # correlation in a window: of a stroke, and of what belongs to it
STROKE = 0.15  # of the mean product of the window that a pixel of a stroke reaches
RIM = 12  # pixels next to the rim of the field of view, which two pictures of one camera share
LEAST = 0.015  # of the field of view that must coincide; chance reaches 0.005
FEWEST_TILES = 15  # that must be left beside the layer to say that they do not meet
UNRELATED = 0.18  # of these tiles, where what is left of one picture may be mere noise
NOISE_LIKE = 0.224  # median of a vessel map above which it may be noise; of vessels it is 0.15
THROUGHOUT = 0.6  # of the strokes that coincide for certain: vessels of two contrasts reach 0.4
GROWTH = 5  # pixels: the kernel that widens coinciding strokes until the layer lies inside
MARGIN = 3  # pixels: the kernel that widens them until what lies beside is free of them
VICINITY = 21  # pixels within which the strongest pixel of a stroke is found
FILLS = (1.5, 3.0, 6.0, 12.0, 24.0, 48.0, 96.0)  # sigmas with which a hole is filled
WIDE = 12.0  # sigma from which a quarter of the pixels is enough
REACHED = 0.1  # weight of the known pixels that is enough
SAME, OPPOSITE = (1,), (-1,)  # contrast of marks: the signs of what the two pictures show of them
FAINTEST = 0.01  # of its product in both pictures, what still belongs to the stroke


class Layer(NamedTuple):
    """How a layer is found, and how pictures of one eye are told that coincide as well.

    meeting: share of the tiles that meet there when the layer is painted over. narrow: whether
    vessels can be seen between its parts, so that pixels that were painted over count too. still:
    share of what meets that must meet to the pixel, where both pictures are as they were stored.
    """

    bands: tuple[Band, ...]
    meeting: float
    narrow: bool
    still: float = 0.0


# One eye reaches 0.6 of the tiles; two eyes reach 0.48 below strokes, and 0.34 beside the slopes
# and borders of a map of colours.
STROKES = Layer(((0.8, 3.0, 3.0), (1.6, 6.0, 6.0)), 0.53, narrow=True)
# Of one eye in one place 0.7 meet to the pixel, of one that moved a little below a layer up to 0.5.
STORED = STROKES._replace(still=0.6)
SLOPES = Layer((*STROKES.bands, (3.2, 12.0, 12.0)), 0.4, narrow=False)


@dataclass(frozen=True, eq=False)
class SharedMarks:
    """A layer that both pictures carry: where it lies (h, w) bool, and what meets beside it.

    agreement: share of the tiles that meet when the layer is taken away.
    """

    where: np.ndarray
    agreement: float


class PicturePair:
    """Two pictures as they were given, and beside the marks that both carry at the same pixels.

    Model and verdict look at one pair, so that marks and fields of view are found once.
    """

    def __init__(self, fixed: Image, moving: Image) -> None:
        self.stored = StoredPicture(fixed, "fixed"), StoredPicture(moving, "moving")

    @cached_property
    def beside(self) -> tuple[StoredPicture, StoredPicture]:
        """Both with the marks painted over, or stored itself when they share none.

        Pictures that were saved at two sizes are compared at one. Raises RegistrationError when
        one of them is blank or too small.
        """
        where = _where_marked(*self.stored)
        if where is None:
            return self.stored
        fixed, moving = (
            StoredPicture(_painted_over(each.image, where), each.role) for each in self.stored
        )
        return fixed, moving

    @property
    def are_marked(self) -> bool:
        """Whether they share marks."""
        return self.beside is not self.stored


def _where_marked(fixed: StoredPicture, moving: StoredPicture) -> np.ndarray | None:
    """Where (h, w) bool, in a thumbnail of both, marks lie at the same pixels."""
    (first, first_inside), (second, second_inside) = (x.thumbnail(SIZE) for x in (fixed, moving))
    aspects = [grey.shape[0] / grey.shape[1] for grey in (first, second)]
    if abs(aspects[0] / aspects[1] - 1) > ASPECT:
        return None
    size = first.shape[1], first.shape[0]
    second = cv2.resize(second, size, interpolation=cv2.INTER_LINEAR)
    shown = cv2.resize(second_inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    marks = shared_marks(first, second, first_inside, shown, SAME + OPPOSITE, (STORED,))
    return None if marks is None else marks.where


def shared_marks(
    fixed: np.ndarray,
    moving: np.ndarray,
    fixed_inside: np.ndarray,
    moving_inside: np.ndarray,
    contrasts: tuple[int, ...] = SAME,
    kinds: tuple[Layer, ...] = (STROKES, SLOPES),
) -> SharedMarks | None:
    """The layer that two pictures (h, w) float32 from 0 to 1 share pixel by pixel, or None.

    fixed_inside, moving_inside: their fields of view (h, w) bool. contrasts: of the marks; grey
    ones are darker than a bright picture and brighter than a dark one, like aligned vessels of two
    modalities. kinds: of layers that are looked for in turn; pictures that are not aligned share
    the slopes of their illumination.
    """
    both, either = fixed_inside & moving_inside, fixed_inside | moving_inside
    valid = eroded(both, RIM)
    off_the_rim = eroded(both, RIM // 2) | eroded(~either, RIM)
    compared = cache(partial(_Compared.of, fixed, moving))
    for kind in kinds:
        bands = [compared(band) for band in kind.bands]
        certain = [_reaching(COINCIDING, bands, sign) & off_the_rim for sign in contrasts]
        core = np.logical_or.reduce(certain) & valid
        if core.sum() <= LEAST * max(valid.sum(), 1):
            continue
        layers = []
        for sign, seeds in zip(contrasts, certain, strict=True):
            strokes = _touched(_reaching(ALIKE, bands, sign) & off_the_rim, seeds)
            layers.append(_painted(fixed, sign * moving, strokes, kind))
        where = np.logical_or.reduce(layers)
        maps = (
            vessel_maps(_filled(fixed, where), fixed_inside),
            vessel_maps(_filled(moving, where), moving_inside),
        )
        throughout = bool(core.sum() > THROUGHOUT * where[valid].sum())
        agreement = _told_apart(maps, where, kind, throughout)
        if agreement is not None:
            return SharedMarks(where, agreement)
    return None


class _Compared(NamedTuple):
    """What a band of two pictures has in common, each (h, w) float32: the product of both, its mean
    in the window of a pixel, and their correlation there."""

    product: np.ndarray
    shared: np.ndarray
    correlation: np.ndarray

    @classmethod
    def of(cls, fixed: np.ndarray, moving: np.ndarray, band: Band) -> _Compared:
        inner, outer, window = band
        first, second = (_blurred(x, inner) - _blurred(x, outer) for x in (fixed, moving))
        product = first * second
        shared = _blurred(product, window)
        energies = [_blurred(x * x, window) + NOISE**2 for x in (first, second)]
        return cls(product, shared, shared / cv2.sqrt(energies[0] * energies[1]))


def _reaching(least: float, bands: Iterable[_Compared], sign: int) -> np.ndarray:
    """Where (h, w) bool strokes of a contrast of that sign correlate by more than least."""
    return np.logical_or.reduce([
        (sign * band.product > STROKE * sign * band.shared) & (sign * band.correlation > least)
        for band in bands
    ])


def _touched(strokes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The connected strokes (h, w) bool that hold one of the seeds (h, w) bool."""
    _, labels = cv2.connectedComponents(strokes.astype(np.uint8))
    touched = np.zeros(labels.max() + 1, bool)
    touched[labels[seeds]] = True
    touched[0] = False
    held: np.ndarray = touched[labels]
    return held


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = cv2.GaussianBlur(values, (0, 0), sigma)
    return blurred


def _painted(
    fixed: np.ndarray, moving: np.ndarray, strokes: np.ndarray, kind: Layer
) -> np.ndarray:
    """Where (h, w) bool the layer is painted over, of which strokes coincide."""
    if kind.narrow:
        return _sharpened(fixed, moving, _grown(strokes, GROWTH))
    return _grown(strokes, MARGIN)


def _sharpened(fixed: np.ndarray, moving: np.ndarray, around: np.ndarray) -> np.ndarray:
    """The pixels (h, w) bool of around where both pictures differ alike from what lies around."""
    product = (fixed - _filled(fixed, around)) * (moving - _filled(moving, around))
    highest = cv2.dilate(product, np.ones((VICINITY, VICINITY), np.uint8))
    return _grown(around & (product > FAINTEST * highest) & (highest > NOISE**2), 3)


def _grown(strokes: np.ndarray, pixels: int) -> np.ndarray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (pixels, pixels))
    grown: np.ndarray = cv2.dilate(strokes.astype(np.uint8), kernel) > 0
    return grown


def _filled(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The values (h, w) float32; inside where, the mean of the nearest ones around it.

    The mean is Gaussian, as narrow as it can be to reach known pixels (Knutsson and Westin 1993).
    """
    known = (~where).astype(np.float32)
    filled, left = values.copy(), where.copy()
    for sigma in FILLS:
        weight = _mean_around(known, sigma)
        reached = left & (weight > REACHED)
        mean = _mean_around(values * known, sigma) / np.maximum(weight, REACHED)
        filled[reached] = mean[reached]
        left &= ~reached
        if not left.any():
            break
    return filled


def _mean_around(values: np.ndarray, sigma: float) -> np.ndarray:
    """The Gaussian mean; a wide one is computed at a quarter of the size."""
    if sigma < WIDE:
        return _blurred(values, sigma)
    size = values.shape[1] // 4, values.shape[0] // 4
    mean = _blurred(cv2.resize(values, size, interpolation=cv2.INTER_AREA), sigma / 4)
    full: np.ndarray = cv2.resize(mean, values.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return full


def _told_apart(
    maps: tuple[VesselMaps, VesselMaps], where: np.ndarray, kind: Layer, throughout: bool
) -> float | None:
    """The agreement of what is left of two pictures if one eye at rest has another, else None."""
    left_out = None if kind.narrow else where
    agreement, tiles = _agreement(*maps, left_out, kind.meeting)
    if tiles < FEWEST_TILES:
        return None
    if agreement >= kind.meeting:
        return agreement if kind.still and _moved(*maps, left_out, kind.still) else None
    clear = throughout or all(_shows_a_tree(left, where) for left in maps)
    return agreement if clear or agreement < UNRELATED else None


def _moved(
    fixed: VesselMaps, moving: VesselMaps, left_out: np.ndarray | None, still: float
) -> bool:
    """Whether what is left meets, but too little of it to the pixel."""
    near, exactly = (_agreement(fixed, moving, left_out, 1.0, most)[0] for most in (NEAR, 1))
    return exactly < still * near


def _shows_a_tree(maps: VesselMaps, where: np.ndarray) -> bool:
    """Whether vessels stand out from the ridges of noise beside the marks."""
    beside = maps.best[maps.valid & ~where]
    return bool(beside.size) and float(np.median(beside)) < NOISE_LIKE


def _agreement(
    fixed: VesselMaps,
    moving: VesselMaps,
    left_out: np.ndarray | None,
    enough: float,
    near: int = NEAR,
) -> tuple[float, float]:
    """The best tile agreement of both kinds of ridges, or one that is enough; its tiles."""
    both = fixed.valid & moving.valid
    first, second = ([_blurred(x, 1.0) for x in maps.strongest_first] for maps in (fixed, moving))
    best = 0.0, 0.0
    for a, b in ((0, 0), (1, 0), (0, 1)):
        found = tile_agreement(first[a], second[b], both, left_out, best[0], enough, near)
        best = max(best, found)
        if best[0] >= enough:
            break
    return best


def _painted_over(image: Image, where: np.ndarray) -> Image:
    """The picture, where (h, w of a thumbnail) it carries marks, continued from around them."""
    array = image.array[:, 0]
    height, width = array.shape[1:]
    size = where.shape[1], where.shape[0]
    share = cv2.resize(_blurred(where.astype(np.float32), 0.7), (width, height))
    share = np.minimum(2 * share, 1)
    channels = []
    for channel in array:
        grey = np.nan_to_num(channel.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        small = _filled(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), where)
        below = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        channels.append(grey + share * (below - grey))
    mixed = np.stack(channels)
    if array.dtype.kind in "ui":
        limits = np.iinfo(array.dtype)
        mixed = np.clip(np.rint(mixed), limits.min, limits.max)
    return replace(image, array=mixed.astype(array.dtype)[:, None])
