"""What the pictures themselves say of a registration: do the vessels meet, everywhere?"""

from __future__ import annotations

import cv2
import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.quality import jacobian_determinants, normalised_mutual_information
from retreg.resample import resample
from retreg.transforms import Affine, Transform
from retreg_server.registration.preprocessing.annotations import PicturePair, shared_marks
from retreg_server.registration.preprocessing.retina_picture import Picture
from retreg_server.registration.preprocessing.tile_agreement import tile_agreement
from retreg_server.registration.preprocessing.vesselness import eroded, vessel_maps

DIAMETER = 448  # pixels of the field of view in which the quality is measured
STRONGEST, OTHER, INSIDE, GREY = range(4)  # channels of the prepared pictures
MOSTLY = 0.6  # of the marks of both pictures, that must lie on each other to have met
APART = 0.4  # of them, below which they did not come near each other
OUTLINE = 6  # pixels from the rim of marks: strokes are narrower than two of it
POLARITIES = ((STRONGEST, STRONGEST), (OTHER, STRONGEST), (STRONGEST, OTHER))


class PictureQuality:
    """The two pictures prepared once, then measured under any transform."""

    def __init__(self, fixed: Image, moving: Image, seen: PicturePair | None = None) -> None:
        """seen: the same two images, if a model has looked at them already."""
        pair = seen or PicturePair(fixed, moving)
        pictures = [each.retina(DIAMETER) for each in pair.beside]
        self.grid = _grid(pictures[0])
        self._fixed, self._moving = _layers(pictures[0]), _layers(pictures[1])
        self._marks: list[Image] = []
        if pair.are_marked:
            self._marks = [
                _changed(stored.image, painted.image)
                for stored, painted in zip(pair.stored, pair.beside, strict=True)
            ]

    @property
    def points(self) -> np.ndarray:
        """LPS mm (n, 3) of every eighth pixel of the fixed field of view."""
        return self._every_eighth(self._fixed.array[INSIDE, 0] > 0.5)

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
        fixed = self._fixed.array[:, 0]
        warped = resample(self._moving, transform, self.grid, fill=0).array[:, 0]
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
        frame, step = self.grid.direction[:, :2], float(self.grid.spacing.min())
        growth = np.abs(jacobian_determinants(transform, points, frame, step)).mean()
        areas = [
            (layers.array[INSIDE] > 0.5).sum() * np.prod(layers.grid.spacing[:2])
            for layers in (self._fixed, self._moving)
        ]
        area = both.sum() * np.prod(self.grid.spacing[:2])
        return float(min(max(area / areas[0], growth * area / areas[1]), 1.0))

    def _met(self, transform: Transform) -> tuple[float, float]:
        """Share of the picture, and of the marks of one, where the marks of both lie on each other.

        0 and 1 without marks in view. The second one is 0 for what meets by chance. Of wide marks
        only the outlines count: the rest lies on each other after a small move, too.
        """
        if not self._marks:
            return 0.0, 1.0
        transforms = Affine.identity(), transform
        fixed, warped = (
            _outlined(resample(marks, by, self.grid).array[0, 0] > 0.5)
            for marks, by in zip(self._marks, transforms, strict=True)
        )
        fewer, more = sorted((float(fixed.sum()), float(warped.sum())))
        if fewer == 0:
            return 0.0, 1.0
        together, by_chance = float((fixed & warped).sum()), more / fixed.size
        return together / fixed.size, (together / fewer - by_chance) / (1 - by_chance + 1e-9)


def _grid(picture: Picture) -> Grid:
    height, width = picture.grey.shape
    return Grid((width, height, 1), picture.world_from_pixel)


def _layers(picture: Picture) -> Image:
    """Both kinds of ridges, the field of view and the grey values as channels of one image."""
    maps = vessel_maps(picture.grey, picture.inside)
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
