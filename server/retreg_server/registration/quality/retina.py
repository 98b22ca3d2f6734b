"""What the pictures themselves say of a registration: do the vessels meet, everywhere?"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.quality import (
    ACCEPT,
    HALF,
    jacobian_determinants,
    normalised_mutual_information,
)
from retreg.resample import resample
from retreg.transforms import Affine, Transform
from retreg_server.registration.preprocessing.annotations import (
    shared_marks,
    without_shared_marks,
)
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture
from retreg_server.registration.preprocessing.tile_agreement import REACH, tile_agreement
from retreg_server.registration.preprocessing.vesselness import vessel_maps

DIAMETER = 448  # pixels of the field of view in which the quality is measured
STRONGEST, OTHER, INSIDE, GREY = range(4)  # channels of the prepared pictures
MUCH_LESS = 1.5  # from here on sides of fields are brought to a common scale
SMALLEST_PART = 0.25  # of a side
LARGEST = 768  # pixels of the fields of view of pictures that share little
MOSTLY = 0.7  # of the marks of both pictures, that must lie on each other to have met
POLARITIES = ((STRONGEST, STRONGEST), (OTHER, STRONGEST), (STRONGEST, OTHER))


class PictureQuality:
    """The two pictures prepared once, then measured under any transform.

    Under one by which they share little, or one shows a small part of the other one, both are
    prepared again: larger, so that there is enough to judge, and vessels as wide in both.
    """

    def __init__(self, fixed: Image, moving: Image) -> None:
        self._images = without_shared_marks(fixed, moving)
        self._marks = None
        if self._images[0] is not fixed:
            self._marks = _changed(fixed, self._images[0]), _changed(moving, self._images[1])
        self._whole = self._prepared(DIAMETER, DIAMETER, 0)
        self.grid = self._whole.grid

    def _prepared(self, fixed: int, moving: int, margin: int) -> _MeasuredPictures:
        """The pictures with fields of so many pixels, and margin empty pixels around them."""
        first, second = (
            _layers(retina_picture(image, role, size).padded(margin), max(fixed, moving))
            for image, role, size in zip(
                self._images, ("fixed", "moving"), (fixed, moving), strict=True
            )
        )
        return _MeasuredPictures(first, second, self._marks)

    @property
    def points(self) -> np.ndarray:
        """LPS mm (n, 3) of every eighth pixel of the fixed field of view."""
        return self._whole.points

    def measure(self, transform: Transform) -> dict[str, float]:
        """See _MeasuredPictures.measure. The identity, which nobody judges, is measured at once."""
        measured = self._whole.measure(transform)
        if isinstance(transform, Affine) and np.array_equal(transform.moving_from_fixed, np.eye(4)):
            return measured
        shown, overlap = self._whole.shown(transform), measured["overlap"]
        is_little = 0 < overlap < HALF and measured["blocks"] < ACCEPT.blocks
        if max(shown, 1 / shown) < MUCH_LESS and not is_little:
            return measured
        size = min(LARGEST, DIAMETER * max(1.0, HALF / max(overlap, 0.01)) ** 0.5)
        sizes = round(size / shown**0.5), round(size * shown**0.5)
        return self._prepared(*sizes, REACH).measure(transform)


@dataclass(frozen=True, eq=False)
class _MeasuredPictures:
    """Layers of both pictures (see _layers), and their marks if any (see _changed)."""

    fixed: Image
    moving: Image
    marks: tuple[Image, Image] | None

    @property
    def grid(self) -> Grid:
        return self.fixed.grid

    @property
    def points(self) -> np.ndarray:
        """LPS mm (n, 3) of every eighth pixel of the fixed field of view."""
        return self._every_eighth(self.fixed.array[INSIDE, 0] > 0.5)

    def _every_eighth(self, chosen: np.ndarray) -> np.ndarray:
        """LPS mm (n, 3) of every eighth pixel along both axes of those chosen (h, w)."""
        thin = np.zeros(chosen.shape, bool)
        thin[::8, ::8] = chosen[::8, ::8]
        return self.grid.lattice()[thin.ravel()]

    def shown(self, transform: Transform) -> float:
        """How long the field of the moving picture is under the transform, in fixed fields.

        From SMALLEST_PART to its inverse, by the middle part of what both show; 1 where they meet
        nowhere.
        """
        points = self.points
        points = points[self.moving.grid.contains(transform(points))]
        if len(points) == 0:
            return 1.0
        growth = float(np.median(self._growth(transform, points))) ** 0.5
        shown = float(self.moving.grid.spacing[0] / self.fixed.grid.spacing[0]) / max(growth, 1e-6)
        return min(max(shown, SMALLEST_PART), 1 / SMALLEST_PART)

    def _growth(self, transform: Transform, points: np.ndarray) -> np.ndarray:
        """By how much areas grow at points (n, 3)."""
        frame, step = self.grid.direction[:, :2], float(self.grid.spacing.min())
        return np.abs(jacobian_determinants(transform, points, frame, step))

    def measure(self, transform: Transform) -> dict[str, float]:
        """overlap, correlation of the vessels, agreement (share of tiles) and nmi.

        overlap: the share of the picture that shows less which the other one shows as well.

        Also meeting_marks: the share of the picture under marks that both carry and that the
        transform puts onto each other, although the vessels below them do not meet.
        """
        fixed = self.fixed.array[:, 0]
        warped = resample(self.moving, transform, self.grid, fill=0).array[:, 0]
        both = (fixed[INSIDE] > 0.5) & (warped[INSIDE] > 0.5)
        agreement, tiles, correlation = max(
            (
                *tile_agreement(fixed[a], warped[b], both),
                _correlation(fixed[a][both], warped[b][both]),
            )
            for a, b in POLARITIES
        )
        marks = shared_marks(fixed[GREY], warped[GREY], fixed[INSIDE] > 0.5, warped[INSIDE] > 0.5)
        meeting = self._meeting_marks(transform)
        return {
            "overlap": self._overlap(transform, both),
            "correlation": correlation,
            "agreement": agreement if marks is None else min(agreement, marks.agreement),
            "blocks": tiles,
            "nmi": normalised_mutual_information(fixed[GREY][both], warped[GREY][both]),
            "meeting_marks": meeting if marks is None else max(meeting, float(marks.where.mean())),
        }

    def _overlap(self, transform: Transform, both: np.ndarray) -> float:
        """Share of what both show (h, w) in the one that shows less."""
        points = self._every_eighth(both)
        if len(points) == 0:
            return 0.0
        growth = self._growth(transform, points).mean()
        areas = [
            (layers.array[INSIDE] > 0.5).sum() * np.prod(layers.grid.spacing[:2])
            for layers in (self.fixed, self.moving)
        ]
        area = both.sum() * np.prod(self.grid.spacing[:2])
        return float(min(max(area / areas[0], growth * area / areas[1]), 1.0))

    def _meeting_marks(self, transform: Transform) -> float:
        """Share of the picture where the marks of both lie on each other, if most of them do."""
        if self.marks is None:
            return 0.0
        transforms = Affine.identity(), transform
        fixed, warped = (
            resample(marks, by, self.grid).array > 0.5
            for marks, by in zip(self.marks, transforms, strict=True)
        )
        together, fewer = float((fixed & warped).sum()), float(min(fixed.sum(), warped.sum()))
        return together / fixed.size if together > MOSTLY * fewer else 0.0


def _grid(picture: Picture) -> Grid:
    height, width = picture.grey.shape
    return Grid((width, height, 1), picture.world_from_pixel)


def _layers(picture: Picture, field: int) -> Image:
    """Both kinds of ridges, the field of view and the grey values as channels of one image.

    field: see vesselness.flattened.
    """
    maps = vessel_maps(picture.grey, picture.inside, field)
    ridges = [cv2.GaussianBlur(ridge, (0, 0), 1.0) for ridge in maps.strongest_first]
    array = np.stack([*ridges, maps.valid.astype(np.float32), picture.grey])
    return Image(array[:, None], _grid(picture))


def _changed(stored: Image, painted: Image) -> Image:
    """Where a picture was painted over, as 0 and 1."""
    changed = (stored.array != painted.array).any(axis=0, keepdims=True)
    return Image(changed.astype(np.float32), stored.grid)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.size < 100 or a.std() < 1e-6 or b.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
