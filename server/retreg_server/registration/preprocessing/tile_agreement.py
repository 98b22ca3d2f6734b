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
    fixed: np.ndarray,
    warped: np.ndarray,
    both: np.ndarray,
    left_out: np.ndarray | None = None,
    least: float = 0.0,
    enough: float = 1.0,
    near: int = NEAR,
) -> tuple[float, float]:
    """Share of tiles that find themselves where the transform put them, and their number.

    fixed, warped: vessel maps (h, w) from 0 to 1; both: (h, w) bool, where both show retina. Each
    tile of the warped vessels is looked for within REACH of its place among the fixed vessels by
    normalised correlation. Unrelated pictures agree in about ((2 NEAR + 1) / (2 REACH + 1))^2 =
    7 % of the tiles. left_out: (h, w) bool, pixels that do not count, nor tiles that mostly show
    them. least: a share of interest; nothing, 0 and 0, as soon as it cannot be reached any more.
    enough: a share that it is enough to know of: what is found by then is told. near: in place of
    NEAR.
    """
    masked = np.where(both, fixed, 0)
    counted = np.ones(both.shape, np.float32)
    if left_out is not None:
        counted[left_out] = 0
    corners = _telling_tiles(warped, both, counted)
    found = len(corners)
    for number, (top, left) in enumerate(corners, start=1):
        tile = slice(top, top + TILE), slice(left, left + TILE)
        window = masked[top - REACH : top + TILE + REACH, left - REACH : left + TILE + REACH]
        offset = np.subtract(_best_place(window, warped[tile], counted[tile]), REACH)
        found -= int(np.abs(offset).max() > near)
        if found < least * len(corners):
            return 0.0, 0.0
        surely = number - (len(corners) - found)
        if enough < 1 and surely >= enough * len(corners):
            return surely / len(corners), float(len(corners))
    return found / max(len(corners), 1), float(len(corners))


def _telling_tiles(
    warped: np.ndarray, both: np.ndarray, counted: np.ndarray
) -> list[tuple[int, int]]:
    """The upper left corners (row, column) of the tiles that show enough of both, and vessels."""
    shown, weight, vessels = (
        _tile_sums(layer) for layer in (both.astype(np.float32), counted, warped**2 * counted)
    )
    telling = (shown >= VALID * TILE**2) & (weight >= COUNTED * TILE**2)
    places = np.argwhere(telling & (vessels >= VESSELS * weight)) * (TILE // 2) + REACH
    return [(int(top), int(left)) for top, left in places]


def _tile_sums(layer: np.ndarray) -> np.ndarray:
    """The sum of a layer (h, w) in each tile; neighbours overlap by half."""
    half = TILE // 2
    rows, columns = (max((n - 2 * REACH - 1) // half, 0) for n in layer.shape)
    blocks = layer[REACH : REACH + rows * half, REACH : REACH + columns * half]
    sums = blocks.reshape(rows, half, columns, half).sum(axis=(1, 3))
    tiles: np.ndarray = sums[:-1, :-1] + sums[1:, :-1] + sums[:-1, 1:] + sums[1:, 1:]
    return tiles


def _best_place(window: np.ndarray, tile: np.ndarray, weight: np.ndarray) -> tuple[int, int]:
    """Where in the window the pixels of the tile that have weight correlate best with it."""
    if weight.all():
        response = cv2.matchTemplate(window, tile, cv2.TM_CCOEFF_NORMED)
    else:
        response = cv2.matchTemplate(window, tile, cv2.TM_CCOEFF_NORMED, mask=weight)
        response[~np.isfinite(response)] = -1  # where the window is constant below the mask
    row, column = np.unravel_index(int(response.argmax()), response.shape)
    return int(row), int(column)
