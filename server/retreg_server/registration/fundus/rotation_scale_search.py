"""Exhaustive search for the rotation, scale and shift between two vessel maps.

Needed when local features find nothing. Each rotation and scale of the moving map is correlated
with the fixed one at all shifts by FFT; only pixels inside both fields of view count (Padfield
2012, Masked Object Registration in the Fourier Domain), and the score is what the sum of products
is worth against chance: its value over the root of the number of overlapping pixels,

    score(T) = sum_x m(x) m'(T x) F(x) M(T x) / sqrt(sum_x m(x) m'(T x)),

for standardised maps F, M with the masks m, m' of their fields of view.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retreg_server.registration.model import Stages

SIZE = 96  # pixels of the field of view
SMOOTH = 0.7
BACKGROUND = 6.0  # standard deviation of what counts as background
ANGLES = 120
SCALES = tuple(1.1**k for k in range(-5, 6))
FINE_STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of a step of angle or scale
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
    values = cv2.GaussianBlur(values, (0, 0), SMOOTH) - cv2.GaussianBlur(values, (0, 0), BACKGROUND)
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
    return float((fixed.values * values).sum() / np.sqrt(max(count, 1.0)))


def searched(
    fixed: SmallMap, moving: SmallMap, stages: Stages, at_most: int
) -> list[Hypothesis]:
    """The best hypotheses, best first; stages hears of the progress in the current part."""
    against = _Correlation(fixed, moving)
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    found = []
    for number, scale in enumerate(SCALES):
        stages.at(number / len(SCALES))
        found += against.hypotheses(scale, angles)
    finer = [against.sharpened(coarse) for coarse in _distinct(found, fixed, at_most)]
    return sorted(finer, key=lambda hypothesis: -hypothesis.score)


class _Correlation:
    """The score of turned and scaled copies of the moving map against the fixed one."""

    def __init__(self, fixed: SmallMap, moving: SmallMap) -> None:
        from scipy import fft  # most pairs need no search, and it takes a while to load

        self._fft = fft
        reach = max(fixed.values.shape) + max(moving.values.shape) * max(SCALES)
        self._length = self._fft.next_fast_len(int(np.ceil(reach)), real=True)
        self._fixed, self._moving = fixed, moving
        self._values = np.conj(self._fft.rfft2(fixed.values, (self._length, self._length)))
        self._mask = np.conj(self._fft.rfft2(fixed.mask, (self._length, self._length)))

    def hypotheses(self, scale: float, angles: np.ndarray) -> list[Hypothesis]:
        """The best shift for each of the angles."""
        size = int(np.ceil(max(self._moving.values.shape) * scale * 1.42)) | 1
        found = []
        weights = np.zeros(())
        for number, angle in enumerate(angles):
            matrix = _turned(self._moving, scale, angle, size)
            if number % 10 == 0:  # the mask is nearly round, so that its overlap changes slowly
                weights = self._weights(_warped(self._moving.mask, matrix, size))
            score = self._correlated(_warped(self._moving.values, matrix, size), self._values)
            score *= weights
            best = int(score.argmax())
            shift = np.array(divmod(best, self._length)[::-1])
            shift = np.where(shift > self._length // 2, shift - self._length, shift)
            full = _full_size(matrix, shift, self._fixed, self._moving)
            found.append(Hypothesis(full, float(score.ravel()[best])))
        return found

    def sharpened(self, coarse: Hypothesis) -> Hypothesis:
        """The best hypothesis within one step of rotation and scale."""
        scale = float(np.sqrt(np.linalg.det(coarse.moving_from_fixed[:2, :2])))
        scale = self._fixed.factor / self._moving.factor / scale
        # The search turns moving to fixed.
        angle = np.arctan2(coarse.moving_from_fixed[0, 1], coarse.moving_from_fixed[0, 0])
        angles = angle + 2 * np.pi / ANGLES * np.array(FINE_STEPS)
        step = SCALES[1] / SCALES[0]
        found = [coarse]
        for fraction in FINE_STEPS:
            found += self.hypotheses(scale * step**fraction, angles)
        return max(found, key=lambda hypothesis: hypothesis.score)

    def _weights(self, mask: np.ndarray) -> np.ndarray:
        """One over the root of the number of common pixels; 0 where they are too few."""
        counts = self._correlated(mask, self._mask)
        fewest = SMALLEST_OVERLAP * float(self._fixed.mask.sum())
        weights: np.ndarray = np.where(counts > fewest, np.maximum(counts, 1) ** -0.5, 0)
        return weights

    def _correlated(self, values: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        shape = self._length, self._length
        correlated: np.ndarray = self._fft.irfft2(self._fft.rfft2(values, shape) * fixed, shape)
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
    turned: np.ndarray = cv2.warpAffine(
        values, matrix[:2], (size, size), flags=cv2.INTER_LINEAR
    )
    return turned


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


def _distinct(found: list[Hypothesis], fixed: SmallMap, at_most: int) -> list[Hypothesis]:
    """The best of the hypotheses that do not map the picture to nearly the same place."""
    height, width = np.array(fixed.values.shape) * fixed.factor
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float).T
    kept: list[Hypothesis] = []
    places: list[np.ndarray] = []
    for hypothesis in sorted(found, key=lambda h: -h.score):
        place = (hypothesis.moving_from_fixed @ corners)[:2]
        if all(np.abs(place - other).mean() > APART * max(width, height) for other in places):
            kept.append(hypothesis)
            places.append(place)
        if len(kept) == at_most:
            break
    return kept
