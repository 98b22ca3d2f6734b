"""How many tiles of one vessel map find themselves in another one where they are put."""

from __future__ import annotations

import cv2
import numpy as np

TILE = 56  # pixels of a field of view of about 448
REACH = 16  # pixels by which a tile may find itself elsewhere
NEAR = 4  # pixels within which it counts as found where the transform put it
VALID = 0.7  # share of a tile that must be retina in both pictures
COUNTED = 0.3  # share of a tile that must count
VESSELS = 0.02  # mean square of the vesselness that a tile needs to say anything


def tile_agreement(
    fixed: np.ndarray, warped: np.ndarray, both: np.ndarray, left_out: np.ndarray | None = None
) -> tuple[float, float]:
    """Share of tiles that find themselves where the transform put them, and their number.

    fixed, warped: vessel maps (h, w) from 0 to 1; both: (h, w) bool, where both show retina. Each
    tile of the warped vessels is looked for within REACH of its place among the fixed vessels by
    normalised correlation. Unrelated pictures agree in about ((2 NEAR + 1) / (2 REACH + 1))^2 =
    7 % of the tiles. left_out: (h, w) bool, pixels that do not count, nor tiles that mostly show
    them.
    """
    masked = np.where(both, fixed, 0)
    counted = np.ones(both.shape, np.float32)
    if left_out is not None:
        counted[left_out] = 0
    found = []
    for top in range(REACH, fixed.shape[0] - TILE - REACH, TILE // 2):
        for left in range(REACH, fixed.shape[1] - TILE - REACH, TILE // 2):
            tile = slice(top, top + TILE), slice(left, left + TILE)
            weight, vessels = counted[tile], (warped[tile] ** 2 * counted[tile]).sum()
            if both[tile].mean() < VALID or weight.mean() < COUNTED:
                continue
            if vessels < VESSELS * weight.sum():
                continue
            window = masked[top - REACH : top + TILE + REACH, left - REACH : left + TILE + REACH]
            offset = np.subtract(_best_place(window, warped[tile], weight), REACH)
            found.append(np.abs(offset).max() <= NEAR)
    return (float(np.mean(found)) if found else 0.0), float(len(found))


def _best_place(window: np.ndarray, tile: np.ndarray, weight: np.ndarray) -> tuple[int, int]:
    """Where in the window the pixels of the tile that have weight correlate best with it."""
    if weight.all():
        response = cv2.matchTemplate(window, tile, cv2.TM_CCOEFF_NORMED)
    else:
        response = cv2.matchTemplate(window, tile, cv2.TM_CCOEFF_NORMED, mask=weight)
        response[~np.isfinite(response)] = -1  # where the window is constant below the mask
    row, column = np.unravel_index(int(response.argmax()), response.shape)
    return int(row), int(column)
