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
from retreg_server.registration.preprocessing.annotations import PicturePair, shared_marks
from retreg_server.registration.preprocessing.retina_picture import Picture
from retreg_server.registration.preprocessing.tile_agreement import REACH, tile_agreement
from retreg_server.registration.preprocessing.vesselness import eroded, vessel_maps

DIAMETER = 448  # pixels of the field of view in which the quality is measured
STRONGEST, OTHER, INSIDE, GREY = range(4)  # channels of the prepared pictures
MUCH_LESS = 1.5  # from here on sides of fields are brought to a common scale
SMALLEST_PART = 0.25  # of a side
FEW = 10  # of as many points one tells how much a transform enlarges
LARGEST = 768  # pixels of the fields of view of pictures that share little
MOSTLY = 0.6  # of the marks of both pictures, that must lie on each other to have met
APART = 0.4  # of them, below which they did not come near each other
OUTLINE = 6  # pixels from the rim of marks: strokes are narrower than two of it
POLARITIES = ((STRONGEST, STRONGEST), (OTHER, STRONGEST), (STRONGEST, OTHER))


class PictureQuality:
    """The two pictures prepared once, then measured under any transform.

    Under one by which they share little, or one shows a small part of the other one, both are
    prepared again: larger, so that there is enough to judge, and vessels as wide in both.
    """

    def __init__(self, fixed: Image, moving: Image, seen: PicturePair | None = None) -> None:
        """seen: the same two images, if a model has looked at them already."""
        self._pair = seen or PicturePair(fixed, moving)
        self._marks: list[Image] = []
        if self._pair.are_marked:
            self._marks = [
                _changed(stored.image, painted.image)
                for stored, painted in zip(self._pair.stored, self._pair.beside, strict=True)
            ]
        self._usual = self._prepared((DIAMETER, DIAMETER), 0)
        self.grid, self.points = self._usual.grid, self._usual.points

    def _prepared(self, diameters: tuple[int, int], margin: int) -> _MeasuredPictures:
        """The pictures with fields of so many pixels, and margin empty pixels around them."""
        fixed, moving = (
            _layers(each.retina(diameter).padded(margin), max(diameters))
            for each, diameter in zip(self._pair.beside, diameters, strict=True)
        )
        return _MeasuredPictures(fixed, moving, self._marks)

    def unmoved(self) -> dict[str, float]:
        """See _MeasuredPictures.unmoved."""
        return self._usual.unmoved()

    def measure(self, transform: Transform) -> dict[str, float]:
        """See _MeasuredPictures.measure."""
        measured, shown = self._usual.measure(transform), self._usual.shown(transform)
        overlap = measured["overlap"]
        is_little = 0 < overlap < HALF and measured["blocks"] < ACCEPT.blocks
        if max(shown, 1 / shown) < MUCH_LESS and not is_little:
            return measured
        size = min(LARGEST, DIAMETER * max(1.0, HALF / max(overlap, 0.01)) ** 0.5)
        diameters = round(size / shown**0.5), round(size * shown**0.5)
        return self._prepared(diameters, REACH).measure(transform)


@dataclass(frozen=True, eq=False)
class _MeasuredPictures:
    """Layers of both pictures (see _layers), and where both are marked (see _changed), if so."""

    fixed: Image
    moving: Image
    marks: list[Image]

    @property
    def grid(self) -> Grid:
        """That of the fixed picture."""
        return self.fixed.grid

    @property
    def points(self) -> np.ndarray:
        """LPS mm (n, 3) of every eighth pixel of the fixed field of view."""
        return self._every_eighth(self.fixed.array[INSIDE, 0] > 0.5)

    def shown(self, transform: Transform) -> float:
        """How long the field of the moving picture is under the transform, in fixed fields.

        From SMALLEST_PART to its inverse; 1 where the two meet nowhere.
        """
        points = self.points[::FEW]
        points = points[self.moving.grid.contains(transform(points))]
        if len(points) == 0:
            return 1.0
        growth = max(float(np.median(self._growth(transform, points))), 1e-9)
        shown = float(self.moving.grid.spacing[0] / self.fixed.grid.spacing[0]) / growth**0.5
        return min(max(shown, SMALLEST_PART), 1 / SMALLEST_PART)

    def _growth(self, transform: Transform, points: np.ndarray) -> np.ndarray:
        """By how much areas grow at points (n, 3)."""
        frame, step = self.grid.direction[:, :2], float(self.grid.spacing.min())
        return np.abs(jacobian_determinants(transform, points, frame, step))

    def _every_eighth(self, chosen: np.ndarray) -> np.ndarray:
        """LPS mm (n, 3) of every eighth pixel along both axes of those chosen (h, w)."""
        thin = np.zeros(chosen.shape, bool)
        thin[::8, ::8] = chosen[::8, ::8]
        return self.grid.lattice()[thin.ravel()]

    def unmoved(self) -> dict[str, float]:
        """agreement of the stronger ridges of both, and nmi, as the pictures lie in the world."""
        fixed, warped, both = self._layers_under(Affine.identity())
        agreement, _ = tile_agreement(fixed[STRONGEST], warped[STRONGEST], both)
        nmi = normalised_mutual_information(fixed[GREY][both], warped[GREY][both])
        return {"agreement": agreement, "nmi": nmi}

    def _layers_under(self, transform: Transform) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The layers (4, h, w) of both pictures on the grid, and where (h, w) both show retina."""
        fixed = self.fixed.array[:, 0]
        warped = resample(self.moving, transform, self.grid, fill=0).array[:, 0]
        return fixed, warped, (fixed[INSIDE] > 0.5) & (warped[INSIDE] > 0.5)

    def measure(self, transform: Transform) -> dict[str, float]:
        """overlap, correlation of the vessels, agreement (share of tiles) and nmi.

        overlap: the share of the picture that shows less which the other one shows as well.

        Also meeting_marks: the share of the picture under marks that both carry and that the
        transform puts onto each other, although the vessels below them do not meet.
        """
        fixed, warped, both = self._layers_under(transform)
        best = 0.0, 0.0, -1.0
        for a, b in POLARITIES:
            found = tile_agreement(fixed[a], warped[b], both, least=best[0])
            best = max(best, (*found, _correlation(fixed[a][both], warped[b][both])))
        agreement, tiles, correlation = best
        met, of_marks = self._met(transform)
        marks = None
        if of_marks > APART:  # or else what meets lies elsewhere than the layer of the files
            shown = fixed[INSIDE] > 0.5, warped[INSIDE] > 0.5
            marks = shared_marks(fixed[GREY], warped[GREY], *shown)
        return {
            "overlap": self._overlap(transform, both),
            "correlation": correlation,
            "agreement": agreement if marks is None else min(agreement, marks.agreement),
            "blocks": tiles,
            "nmi": normalised_mutual_information(fixed[GREY][both], warped[GREY][both]),
            "meeting_marks": max(
                met if of_marks > MOSTLY else 0.0,
                0.0 if marks is None else float(marks.where.mean()),
            ),
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

    def _met(self, transform: Transform) -> tuple[float, float]:
        """Share of the picture, and of the marks of one, where the marks of both lie on each other.

        0 and 1 without marks in view. The second one is 0 for what meets by chance. Of wide marks
        only the outlines count: the rest lies on each other after a small move, too.
        """
        if not self.marks:
            return 0.0, 1.0
        transforms = Affine.identity(), transform
        fixed, warped = (
            _outlined(resample(marks, by, self.grid).array[0, 0] > 0.5)
            for marks, by in zip(self.marks, transforms, strict=True)
        )
        fewer, more = sorted((float(fixed.sum()), float(warped.sum())))
        if fewer == 0:
            return 0.0, 1.0
        together, by_chance = float((fixed & warped).sum()), more / fixed.size
        return together / fixed.size, (together / fewer - by_chance) / (1 - by_chance + 1e-9)


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


def _outlined(marks: np.ndarray) -> np.ndarray:
    """The marks (h, w) bool without the inner parts of wide ones."""
    return marks & ~eroded(marks, OUTLINE)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.size < 100 or a.std() < 1e-6 or b.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
