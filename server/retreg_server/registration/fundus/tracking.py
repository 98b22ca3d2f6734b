"""Where the vessels around a point are found in the other picture: tracking after a warp."""

from __future__ import annotations

import cv2
import numpy as np

from retreg_server.registration.fundus.pixel_maps import PixelMap
from retreg_server.registration.fundus.vessel_pyramid import VesselPyramidLevel

WINDOW = 31  # pixels
FARTHEST = 15.0  # pixels that tracking may move a point
LEVELS = 3  # of the pyramid, beyond full size
ITERATIONS, SETTLED = 12, 0.03  # on each level; a step of fewer pixels ends it
UNLIKE = 0.4  # correlation of two windows that show nothing in common
MAP_STEP = 4  # pixels between the places where a map is computed


def tracked(
    points: np.ndarray,
    fixed: VesselPyramidLevel,
    moving: VesselPyramidLevel,
    mapped: PixelMap,
    window: int = WINDOW,
    farthest: float = FARTHEST,
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (n, 2) in fixed pixels so that x is found at mapped(x + shift), and weights (n,).

    The window around each point is followed to the moving map, brought to the fixed frame, and
    back (Lucas and Kanade 1981; Bouguet 2001). The weight falls from 1 with the distance between
    start and end, and is 0 for a point that is lost or moves by farthest or more.
    """
    if not len(points):
        return np.zeros((0, 2)), np.zeros(0)
    height, width = fixed.valid.shape
    warped_moving, shown = warped(moving, mapped, (height, width))
    first, second = (
        np.rint(255 * np.clip(x * (shown & fixed.valid), 0, 1)).astype(np.uint8)
        for x in (fixed.samples[..., 0], warped_moving)
    )
    column, row = np.clip(np.rint(points), 0, (width - 1, height - 1)).astype(int).T
    start = points.astype(np.float32)
    kept = np.flatnonzero(shown[row, column])
    end, found = _followed(start[kept], first, second, window)
    found &= np.linalg.norm((end - start[kept]).astype(np.float64), axis=1) < farthest
    kept, end = kept[found], end[found]
    back, found = _followed(end, second, first, window)
    mismatch = np.linalg.norm(back - start[kept], axis=1)
    good = found & (mismatch < 1)
    shift, weights = np.zeros(points.shape), np.zeros(len(points))
    shift[kept[good]] = (end - start[kept])[good]
    weights[kept[good]] = 1 / (1 + (2 * mismatch[good]) ** 2)
    return shift, weights


def _followed(
    points: np.ndarray, start: np.ndarray, end: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where points (n, 2) float32 of a picture (h, w) uint8 lie in another one, and which do."""
    if not len(points):
        return points, np.zeros(0, bool)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, ITERATIONS, SETTLED)
    settings = {"winSize": (window, window), "maxLevel": LEVELS, "criteria": stop}
    found, status, _ = cv2.calcOpticalFlowPyrLK(start, end, points[:, None], None, **settings)
    return found[:, 0], status.ravel().astype(bool)


def patch_similarity(
    points: np.ndarray,
    shifts: np.ndarray,
    fixed: VesselPyramidLevel,
    moving: VesselPyramidLevel,
    mapped: PixelMap,
) -> np.ndarray:
    """How alike the pictures are around each x (n, 2) and mapped(x + shift): (n,) from 0 to 1.

    It is 1 where two windows correlate fully, and 0 where they do as little as UNLIKE. n > 0.
    """
    height, width = fixed.valid.shape
    warped_moving, shown = warped(moving, mapped, (height, width))
    both = shown & fixed.valid
    reach = np.arange(-(WINDOW // 2) + 1, WINDOW // 2, 2)
    x, y = (offset.ravel() for offset in np.meshgrid(reach, reach))

    def windows(image: np.ndarray, centres: np.ndarray) -> np.ndarray:
        columns, rows = (
            (start[:, None] + offset).astype(np.float32)
            for start, offset in zip(centres.T, (x, y), strict=True)
        )
        values = cv2.remap(image * both, columns, rows, cv2.INTER_LINEAR)
        centred: np.ndarray = values - values.mean(axis=1, keepdims=True)
        return centred

    first, second = windows(fixed.samples[..., 0], points), windows(warped_moving, points + shifts)
    energy = np.square(first).sum(axis=1) * np.square(second).sum(axis=1)
    correlation = (first * second).sum(axis=1) / np.sqrt(energy + 1e-9)
    alike: np.ndarray = np.clip((correlation - UNLIKE) / (1 - UNLIKE), 0, 1)
    return alike


def warped(
    moving: VesselPyramidLevel, mapped: PixelMap, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A full-size moving map brought to the fixed frame (h, w), and where it is valid."""
    height, width = shape
    x, y = (
        np.arange(-MAP_STEP, n + 2 * MAP_STEP, MAP_STEP, dtype=np.float64) for n in (width, height)
    )
    nodes = np.stack(np.meshgrid(x, y), axis=-1)
    known = mapped(nodes.reshape(-1, 2)).reshape(nodes.shape).astype(np.float32)
    across, down = np.meshgrid(
        *((np.arange(n, dtype=np.float32) + MAP_STEP) / MAP_STEP for n in (width, height))
    )
    places = cv2.remap(known, across, down, cv2.INTER_LINEAR)
    values = np.ascontiguousarray(moving.samples[..., 0])
    image = cv2.remap(values, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    shown = cv2.remap(moving.valid.astype(np.uint8), places, None, cv2.INTER_NEAREST)
    return image * shown, shown > 0
