"""Where a retinal picture shows retina: inside its dark (or white) surround."""

from __future__ import annotations

import cv2
import numpy as np

SMALLEST = 0.05  # a field of view below this share of the picture is not believed
DARKEST_TISSUE = 0.12  # a surround is darker than this share of the grey range
FLATTEST_TISSUE = 0.04  # and varies less than this
DIMMEST_TISSUE = 0.15  # of the median tissue, counted from the level of the surround
NOISE = 3  # the surround may vary by this multiple of its lower spread
HULL_EXCESS = 1.3
LINE = 7  # pixels of the thumbnail: narrower strokes around or beside the retina are none of it


def field_of_view(brightness: np.ndarray) -> np.ndarray:
    """The field of view (h, w) bool of a thumbnail (h, w) float32 from 0 to 1.

    A surround is a flat dark or white region that touches the frame. Text and marks beside the
    retina are dropped; a picture without a surround, as scanning lasers make, is used whole.
    """
    inside: np.ndarray = ~(_surround(brightness) | _surround(1 - brightness))
    if inside.all():
        return inside
    inside = _largest(_opened(inside))
    if inside.mean() < SMALLEST:
        return np.ones(brightness.shape, bool)
    hull = _convex_hull(inside)
    hull_fits = hull.sum() < HULL_EXCESS * inside.sum()
    return hull if hull_fits else inside


def _surround(brightness: np.ndarray) -> np.ndarray:
    """The flat dark region that touches the frame; empty when there is none.

    Bright lines that are drawn through it or around it belong to it.
    """
    brightness = cv2.morphologyEx(brightness, cv2.MORPH_OPEN, np.ones((LINE, LINE), np.uint8))
    ring = np.concatenate([*brightness[[0, 1, -2, -1]], *brightness[:, [0, 1, -2, -1]].T])
    lowest, level = np.percentile(ring, (2, 20))
    if level > DARKEST_TISSUE or level - lowest > FLATTEST_TISSUE:
        return np.zeros(brightness.shape, bool)
    smooth = cv2.blur(brightness, (3, 3))
    brighter = smooth[smooth > level + FLATTEST_TISSUE]
    tissue = float(np.median(brighter)) if brighter.size else 1.0
    rise = max(DIMMEST_TISSUE * (tissue - level), NOISE * (level - lowest))
    dark = smooth <= level + rise
    _, labels = cv2.connectedComponents(dark.astype(np.uint8))
    rim = np.concatenate([*labels[[0, -1]], *labels[:, [0, -1]].T])
    touching = np.zeros(labels.max() + 1, bool)
    touching[rim] = True
    touching[0] = False
    surround: np.ndarray = touching[labels]
    return surround


def _opened(mask: np.ndarray) -> np.ndarray:
    size = max(3, min(mask.shape) // 10) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    # Beyond the frame there is no retina, so that bars along it are removed, too.
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), *(4 * [size]), cv2.BORDER_CONSTANT)
    opened: np.ndarray = cv2.morphologyEx(padded, cv2.MORPH_OPEN, kernel).astype(bool)
    return opened[size:-size, size:-size]


def _largest(mask: np.ndarray) -> np.ndarray:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if len(stats) == 1:
        return mask
    largest: np.ndarray = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return largest


def _convex_hull(mask: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.column_stack([np.concatenate([first, last]), np.concatenate([rows, rows])])
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(ends.astype(np.int32)), 1)
    return filled.astype(bool)
