"""How many tiles of one vessel map find themselves in another one where they are put."""

from __future__ import annotations

import cv2
import numpy as np

TILE = 56  # pixels of a field of view of about 448
REACH = 16  # pixels by which a tile may find itself elsewhere
NEAR = 4  # pixels within which it counts as found where the transform put it
VALID = 0.7  # share of a tile that must be retina in both pictures
VESSELS = 0.02  # mean square of the vesselness that a tile needs to say anything


def tile_agreement(fixed: np.ndarray, warped: np.ndarray, both: np.ndarray) -> tuple[float, float]:
    """Share of tiles that find themselves where the transform put them, and their number.

    fixed, warped: vessel maps (h, w) from 0 to 1; both: (h, w) bool, where both show retina. Each
    tile of the warped vessels is looked for within REACH of its place among the fixed vessels by
    normalised correlation. Unrelated pictures agree in about ((2 NEAR + 1) / (2 REACH + 1))^2 =
    7 % of the tiles.
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
