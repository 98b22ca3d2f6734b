"""What the pictures themselves say of a registration: do the vessels meet, everywhere?"""

from __future__ import annotations

import cv2
import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.quality import normalised_mutual_information
from retreg.resample import resample
from retreg.transforms import Transform
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps

DIAMETER = 448  # pixels of the field of view in which the quality is measured
TILE = 56
REACH = 16  # pixels by which a tile may find itself elsewhere
NEAR = 4  # pixels within which it counts as found where the transform put it
VALID = 0.7  # share of a tile that must be retina in both pictures
STRONGEST, OTHER, INSIDE, GREY = range(4)  # channels of the prepared pictures
POLARITIES = ((STRONGEST, STRONGEST), (OTHER, STRONGEST), (STRONGEST, OTHER))
VESSELS = 0.02  # mean square of the vesselness that a tile needs to say anything


class PictureQuality:
    """The two pictures prepared once, then measured under any transform."""

    def __init__(self, fixed: Image, moving: Image) -> None:
        fixed_picture = retina_picture(fixed, "fixed", DIAMETER)
        moving_picture = retina_picture(moving, "moving", DIAMETER)
        self.grid = _grid(fixed_picture)
        self._fixed = _layers(fixed_picture)
        self._moving = _layers(moving_picture)

    @property
    def points(self) -> np.ndarray:
        """LPS mm (n, 3) of every eighth pixel of the fixed field of view."""
        inside = self._fixed.array[INSIDE, 0].ravel() > 0.5
        thin = np.zeros(self.grid.shape[1:], bool)
        thin[::8, ::8] = True
        return self.grid.lattice()[inside & thin.ravel()]

    def measure(self, transform: Transform) -> dict[str, float]:
        """overlap, correlation of the vessels, agreement (share of tiles) and nmi."""
        fixed = self._fixed.array[:, 0]
        warped = resample(self._moving, transform, self.grid, fill=0).array[:, 0]
        both = (fixed[INSIDE] > 0.5) & (warped[INSIDE] > 0.5)
        agreement, tiles, correlation = max(
            (*_agreement(fixed[a], warped[b], both), _correlation(fixed[a][both], warped[b][both]))
            for a, b in POLARITIES
        )
        return {
            "overlap": float(both.sum() / max((fixed[INSIDE] > 0.5).sum(), 1)),
            "correlation": correlation,
            "agreement": agreement,
            "blocks": tiles,
            "nmi": normalised_mutual_information(fixed[GREY][both], warped[GREY][both]),
        }


def _grid(picture: Picture) -> Grid:
    height, width = picture.grey.shape
    return Grid((width, height, 1), picture.world_from_pixel)


def _layers(picture: Picture) -> Image:
    """Both kinds of ridges, the field of view and the grey values as channels of one image."""
    maps = vessel_maps(picture.grey, picture.inside)
    ridges = [cv2.GaussianBlur(ridge, (0, 0), 1.0) for ridge in maps.strongest_first]
    array = np.stack([*ridges, maps.valid.astype(np.float32), picture.grey])
    return Image(array[:, None], _grid(picture))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.size < 100 or a.std() < 1e-6 or b.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _agreement(fixed: np.ndarray, warped: np.ndarray, both: np.ndarray) -> tuple[float, float]:
    """Share of tiles that find themselves where the transform put them, and their number.

    Each tile of the warped vessels is looked for within REACH of its place among the fixed
    vessels by normalised correlation. Unrelated pictures agree in about
    ((2 NEAR + 1) / (2 REACH + 1))^2 = 7 % of the tiles.
    """
    masked = np.where(both, fixed, 0)
    found = []
    for top in range(REACH, fixed.shape[0] - TILE - REACH, TILE // 2):
        for left in range(REACH, fixed.shape[1] - TILE - REACH, TILE // 2):
            tile = slice(top, top + TILE), slice(left, left + TILE)
            if both[tile].mean() < VALID or (warped[tile] ** 2).mean() < VESSELS:
                continue
            window = masked[top - REACH : top + TILE + REACH, left - REACH : left + TILE + REACH]
            response = cv2.matchTemplate(window, warped[tile], cv2.TM_CCOEFF_NORMED)
            offset = np.subtract(np.unravel_index(int(response.argmax()), response.shape), REACH)
            found.append(np.abs(offset).max() <= NEAR)
    return (float(np.mean(found)) if found else 0.0), float(len(found))
