"""Exhaustive search for the rotation, scale and shift between two vessel maps.

Needed when local features find nothing. Each rotation and scale of the moving map is correlated
with the fixed one at all shifts by FFT; only pixels inside both fields of view count (Padfield
2012, Masked Object Registration in the Fourier Domain), and the score is what the sum of products
is worth against chance: its value over the root of the number of overlapping pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import fft

SIZE = 96  # pixels of the field of view
SMOOTH = 1.0
ANGLES = 90
SCALES = tuple(1.13**k for k in range(-4, 5))
SMALLEST_OVERLAP = 0.25
APART = 0.12  # of the field of view: closer hypotheses count as one


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A similarity (3, 3) and its score in standard deviations of chance, roughly."""

    moving_from_fixed: np.ndarray
    score: float


@dataclass(frozen=True, eq=False)
class SmallMap:
    """A standardised map and its mask, (h, w) float32, with full-size pixels per pixel."""

    values: np.ndarray
    mask: np.ndarray
    factor: float


def small_map(vessels: np.ndarray, valid: np.ndarray) -> SmallMap:
    """The map (h, w) with its valid pixels (h, w) bool, shrunk and standardised for the search."""
    factor = max(vessels.shape) / SIZE
    size = round(vessels.shape[1] / factor), round(vessels.shape[0] / factor)
    mask = cv2.resize(valid.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    mask = (mask > 0.5).astype(np.float32)
    values = cv2.resize(vessels, size, interpolation=cv2.INTER_AREA)
    # The local background is taken off: broad bright areas would outvote the vessels.
    values = cv2.GaussianBlur(values, (0, 0), SMOOTH) - cv2.GaussianBlur(values, (0, 0), 6 * SMOOTH)
    inside = mask > 0
    if inside.any():
        values = (values - values[inside].mean()) / (values[inside].std() + 1e-6) * mask
    return SmallMap(np.clip(values, -3, 3), mask, factor)


def chance_score(moving_from_fixed: np.ndarray, fixed: SmallMap, moving: SmallMap) -> float:
    """The score of the search for a given (3, 3) map."""
    small = (
        np.linalg.inv(_scaling(moving.factor)) @ moving_from_fixed @ _scaling(fixed.factor)
    )
    height, width = fixed.values.shape
    values, mask = (
        cv2.warpAffine(x, small[:2], (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        for x in (moving.values, moving.mask)
    )
    count = float((fixed.mask * mask).sum())
    return float((fixed.values * values).sum()) / max(count, 1.0) ** 0.5


def searched(
    fixed: SmallMap, moving: SmallMap, tick: Callable[[float], None], at_most: int
) -> list[Hypothesis]:
    """The best hypotheses, best first; tick is called with the fraction of the search done."""
    reach = max(fixed.values.shape) + max(moving.values.shape) * max(SCALES)
    length = fft.next_fast_len(int(np.ceil(reach)), real=True)
    against = _Correlation(fixed, length)
    found = []
    for number, scale in enumerate(SCALES):
        tick(number / len(SCALES))
        size = int(np.ceil(max(moving.values.shape) * scale * 1.42)) | 1
        weights = np.zeros(())
        for turn in range(ANGLES):
            matrix = _turned(moving, scale, 2 * np.pi * turn / ANGLES, size)
            if turn % 10 == 0:  # the mask is nearly round, so that its overlap changes slowly
                weights = against.weights(_warped(moving.mask, matrix, size))
            score, shift = against.peak(_warped(moving.values, matrix, size), weights)
            found.append(Hypothesis(_full_size(matrix, shift, fixed, moving), score))
    shape = np.array(fixed.values.shape) * fixed.factor
    return _distinct(found, shape, at_most)


class _Correlation:
    """Correlation of other maps with the fixed one, at all shifts."""

    def __init__(self, fixed: SmallMap, length: int) -> None:
        self._length = length
        self._values = np.conj(fft.rfft2(fixed.values, (length, length)))
        self._mask = np.conj(fft.rfft2(fixed.mask, (length, length)))
        self._fewest = SMALLEST_OVERLAP * float(fixed.mask.sum())

    def weights(self, mask: np.ndarray) -> np.ndarray:
        """One over the root of the number of common pixels; 0 where they are too few."""
        counts = self._correlated(mask, self._mask)
        weights: np.ndarray = np.where(counts > self._fewest, np.maximum(counts, 1) ** -0.5, 0)
        return weights

    def peak(self, values: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The best score, and the shift (x, y) from a fixed pixel to the one of values."""
        score = self._correlated(values, self._values) * weights
        best = int(score.argmax())
        shift = np.array(divmod(best, self._length)[::-1])
        shift = np.where(shift > self._length // 2, shift - self._length, shift)
        return float(score.ravel()[best]), shift

    def _correlated(self, values: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        length = self._length
        correlated: np.ndarray = fft.irfft2(
            fft.rfft2(values, (length, length)) * fixed, (length, length)
        )
        return correlated


def _turned(small: SmallMap, scale: float, angle: float, size: int) -> np.ndarray:
    """(3, 3): a turned and scaled copy of size x size pixels from the map, about its centre."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    centre = (np.array(small.values.shape[::-1]) - 1) / 2
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = (size - 1) / 2 - linear @ centre
    return matrix


def _warped(values: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    return cv2.warpAffine(values, matrix[:2], (size, size), flags=cv2.INTER_LINEAR)


def _full_size(
    turned_from_moving: np.ndarray, shift: np.ndarray, fixed: SmallMap, moving: SmallMap
) -> np.ndarray:
    """(3, 3) from full-size fixed to full-size moving pixels."""
    turned_from_fixed = np.eye(3)
    turned_from_fixed[:2, 2] = shift
    small = np.linalg.inv(turned_from_moving) @ turned_from_fixed
    matrix: np.ndarray = _scaling(moving.factor) @ small @ np.linalg.inv(_scaling(fixed.factor))
    return matrix


def _scaling(factor: float) -> np.ndarray:
    """(3, 3) from the pixels of a map shrunk by factor to its full-size pixels."""
    shift = (factor - 1) / 2
    return np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]])


def _distinct(found: list[Hypothesis], shape: np.ndarray, at_most: int) -> list[Hypothesis]:
    """The best of the hypotheses that do not map the picture to nearly the same place."""
    height, width = shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float).T
    kept: list[Hypothesis] = []
    places: list[np.ndarray] = []
    for hypothesis in sorted(found, key=lambda h: -h.score):
        place = (hypothesis.moving_from_fixed @ corners)[:2]
        if all(np.abs(place - other).mean() > APART * shape.max() for other in places):
            kept.append(hypothesis)
            places.append(place)
        if len(kept) == at_most:
            break
    return kept
