"""Exhaustive search for the rotation, scale and shift between two vessel maps.

Needed when local features find nothing. The picture that shows more, whichever that is at a scale,
is turned, and the other one is shrunk to its sampling; they are correlated at all shifts by FFT.
Only pixels inside both fields of view count (Padfield 2012, Masked Object Registration in the
Fourier Domain), and the score is what the sum of products is worth against chance: its value over
the root of the number of overlapping pixels,

    score(T) = sum_x m(x) m'(T x) F(x) M(T x) / sqrt(sum_x m(x) m'(T x)),

for standardised maps F, M with the masks m, m' of their fields of view.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from retreg_server.registration.model import Stages

SIZE = 96  # pixels of the field of view of the picture that shows more
SMOOTH = 0.7
BACKGROUND = 6.0  # standard deviation of what counts as background
ANGLES = 120
STEP = 1.1  # from one scale to the next
ALL_SCALES = STEP ** np.arange(-11.0, 12.0)  # of the fields of view; with FINE_STEPS 0.33 to 3
USUAL_SCALES = ALL_SCALES[6:-6]  # pictures of one eye by most cameras
NEAR = 2.5  # steps of scale within which the other way round is searched
FINE_STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of a step of angle or scale
LENGTH = 144  # pixels of the square of the FFT: SIZE, and the farthest shift that counts
SMALLEST_OVERLAP = 0.25  # of the picture that shows less
MOST = 200  # hypotheses, of which most name nearly the same place
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


@dataclass(frozen=True, eq=False)
class SearchedMap:
    """A vessel map (h, w) with its valid pixels (h, w) bool, as the search sees it at any size."""

    vessels: np.ndarray
    valid: np.ndarray

    @cached_property
    def small(self) -> SmallMap:
        return self.shrunk(SIZE)

    @cached_property
    def _half(self) -> tuple[np.ndarray, np.ndarray]:
        """The map and its valid pixels, both float32, at twice the size of the small one."""
        factor = max(self.vessels.shape) / (2 * SIZE)
        size = tuple(round(n / factor) for n in self.vessels.shape[::-1])
        vessels, valid = (
            cv2.resize(layer.astype(np.float32), size, interpolation=cv2.INTER_AREA)
            for layer in (self.vessels, self.valid)
        )
        return vessels, valid

    def shrunk(self, pixels: float) -> SmallMap:
        """The map shrunk to so many pixels along its longer side, and standardised."""
        factor = max(self.vessels.shape) / pixels
        size = tuple(round(n / factor) for n in self.vessels.shape[::-1])
        values, valid = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in self._half)
        mask = (valid > 0.5).astype(np.float32)
        # The local background is taken off: broad bright areas would outvote the vessels.
        smooth, background = (cv2.GaussianBlur(values, (0, 0), s) for s in (SMOOTH, BACKGROUND))
        values = smooth - background
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


def small_maps(fixed: SearchedMap, moving: SearchedMap) -> tuple[SmallMap, SmallMap]:
    """Both maps for chance_score; finer, and with equal pixels, where one is a part of a field."""
    sides = [max(each.vessels.shape) for each in (fixed, moving)]
    if sides[0] == sides[1]:
        return fixed.small, moving.small
    pixel = max(sides) / (2 * SIZE)
    return fixed.shrunk(sides[0] / pixel), moving.shrunk(sides[1] / pixel)


def searched(
    fixed: SearchedMap,
    moving: SearchedMap,
    stages: Stages,
    at_most: int,
    scales: np.ndarray = ALL_SCALES,
) -> list[Hypothesis]:
    """The best hypotheses, best first; stages hears of the progress in the current part.

    scales: (n,) of ALL_SCALES, of the field of the moving picture to that of the fixed one.
    """
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    stages.at(0.0)
    found = _hypotheses(fixed, moving, scales[scales >= 1], angles)
    stages.at(0.5)
    found += [_inverse(each) for each in _hypotheses(moving, fixed, 1 / scales[scales < 1], angles)]
    finer = [_sharpened(coarse, fixed, moving) for coarse in _distinct(found, fixed, at_most)]
    return sorted(finer, key=lambda hypothesis: -hypothesis.score)


def scales_near(found: Hypothesis, fixed: SearchedMap, moving: SearchedMap) -> np.ndarray:
    """The scales at which searching the other way round may find the same."""
    shown = _shown(found, fixed, moving)
    return ALL_SCALES[np.abs(np.log(ALL_SCALES * shown)) < NEAR * np.log(STEP)]


def _shown(found: Hypothesis, fixed: SearchedMap, moving: SearchedMap) -> float:
    """By how much the field of the moving picture is larger than that of the fixed one."""
    zoom = float(np.sqrt(np.linalg.det(found.moving_from_fixed[:2, :2])))
    return max(moving.vessels.shape) / max(fixed.vessels.shape) / zoom


def _sharpened(coarse: Hypothesis, fixed: SearchedMap, moving: SearchedMap) -> Hypothesis:
    """The best hypothesis within one step of rotation and scale."""
    matrix = coarse.moving_from_fixed
    shown = _shown(coarse, fixed, moving)
    angle = np.arctan2(matrix[0, 1], matrix[0, 0])
    angles = angle + 2 * np.pi / ANGLES * np.array(FINE_STEPS)
    scales = STEP ** np.array(FINE_STEPS)
    if shown >= 1:
        found = _hypotheses(fixed, moving, shown * scales, angles)
    else:
        found = [_inverse(x) for x in _hypotheses(moving, fixed, scales / shown, -angles)]
    return max([coarse, *found], key=lambda hypothesis: hypothesis.score)


def _inverse(found: Hypothesis) -> Hypothesis:
    return Hypothesis(np.linalg.inv(found.moving_from_fixed), found.score)


def _hypotheses(
    narrow: SearchedMap, wide: SearchedMap, scales: np.ndarray, angles: np.ndarray
) -> list[Hypothesis]:
    """The best ones, each with the best shift from narrow to wide at one of the scales, by which
    the field of wide is larger, and angles, by which wide is turned."""
    if len(scales) == 0:
        return []
    turned, size = wide.small, _turned_size(wide.small)
    correlations = [_Correlation(narrow.shrunk(SIZE / scale), turned) for scale in scales]
    matrices = [_turned(turned, angle, size) for angle in angles]
    scores = np.zeros((len(angles), len(scales)))
    places = np.zeros(scores.shape, np.int64)
    for row, matrix in enumerate(matrices):
        if row % 10 == 0:  # the mask is nearly round, so that its overlap changes slowly
            mask = _spectrum(_warped(turned.mask, matrix, size))
            weights = [each.weights(mask) for each in correlations]
        values = _spectrum(_warped(turned.values, matrix, size))
        for column, (each, weight) in enumerate(zip(correlations, weights, strict=True)):
            places[row, column], scores[row, column] = each.best(values, weight)
    best = np.argsort(-scores, axis=None)[:MOST]
    found = []
    for row, column in zip(*np.unravel_index(best, scores.shape), strict=True):
        shift = _shift(int(places[row, column]), correlations[column].narrow, size)
        full = _full_size(matrices[row], shift, correlations[column].narrow, turned)
        found.append(Hypothesis(full, float(scores[row, column])))
    return found


class _Correlation:
    """The score of turned copies of one map against a shrunk other one, from their spectra."""

    def __init__(self, narrow: SmallMap, wide: SmallMap) -> None:
        self.narrow = narrow
        self._values, self._mask = _spectrum(narrow.values), _spectrum(narrow.mask)
        self._fewest = SMALLEST_OVERLAP * min(float(narrow.mask.sum()), float(wide.mask.sum()))

    def weights(self, mask: np.ndarray) -> np.ndarray:
        """One over the root of the number of common pixels; 0 where they are too few."""
        counts = _correlated(mask, self._mask)
        weights: np.ndarray = np.where(counts > self._fewest, np.maximum(counts, 1) ** -0.5, 0)
        return weights

    def best(self, values: np.ndarray, weights: np.ndarray) -> tuple[int, float]:
        """The place of the best score, and this score."""
        score = _correlated(values, self._values)
        score *= weights
        place = int(score.argmax())
        return place, float(score.flat[place])


def _shift(place: int, narrow: SmallMap, size: int) -> np.ndarray:
    """The shift (2,), x and y, from the narrow to the turned map, that a place stands for.

    Shifts wrap around; those nearest to where both centres meet are meant.
    """
    middle = (size - np.array(narrow.values.shape[::-1])) // 2
    wrapped = np.array(divmod(place, LENGTH)[::-1]) - middle + LENGTH // 2
    shift: np.ndarray = wrapped % LENGTH - LENGTH // 2 + middle
    return shift


def _spectrum(values: np.ndarray) -> np.ndarray:
    """Of a map in the corner of a square, in OpenCV's packed form."""
    square = np.zeros((LENGTH, LENGTH), np.float32)
    square[: values.shape[0], : values.shape[1]] = values
    spectrum: np.ndarray = cv2.dft(square)
    return spectrum


def _correlated(turned: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    product = cv2.mulSpectrums(turned, narrow, 0, conjB=True)
    correlated: np.ndarray = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)
    return correlated


def _turned_size(small: SmallMap) -> int:
    """Pixels along the side of a square in which the map can be turned."""
    return min(int(np.ceil(np.hypot(*small.values.shape))) | 1, LENGTH)


def _turned(small: SmallMap, angle: float, size: int) -> np.ndarray:
    """(3, 3): a turned copy of size x size pixels from the map, about its centre."""
    cosine, sine = np.cos(angle), np.sin(angle)
    centre = (np.array(small.values.shape[::-1]) - 1) / 2
    matrix = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    matrix[:2, 2] = (size - 1) / 2 - matrix[:2, :2] @ centre
    return matrix


def _warped(values: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    turned: np.ndarray = cv2.warpAffine(
        values, matrix[:2], (size, size), flags=cv2.INTER_LINEAR
    )
    return turned


def _full_size(
    turned_from_wide: np.ndarray, shift: np.ndarray, narrow: SmallMap, wide: SmallMap
) -> np.ndarray:
    """(3, 3) from full-size narrow to full-size wide pixels."""
    turned_from_narrow = np.eye(3)
    turned_from_narrow[:2, 2] = shift
    small = np.linalg.inv(turned_from_wide) @ turned_from_narrow
    matrix: np.ndarray = _scaling(wide.factor) @ small @ np.linalg.inv(_scaling(narrow.factor))
    return matrix


def _scaling(factor: float) -> np.ndarray:
    """(3, 3) from the pixels of a map shrunk by factor to its full-size pixels."""
    shift = (factor - 1) / 2
    return np.array([[factor, 0, shift], [0, factor, shift], [0, 0, 1]])


def _distinct(found: list[Hypothesis], fixed: SearchedMap, at_most: int) -> list[Hypothesis]:
    """The best of the hypotheses that do not map the picture to nearly the same place."""
    height, width = fixed.vessels.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float).T
    kept: list[Hypothesis] = []
    places: list[np.ndarray] = []
    for hypothesis in sorted(found, key=lambda h: -h.score):
        place = (hypothesis.moving_from_fixed @ corners)[:2]
        reach = APART * np.ptp(place, axis=1).max()
        if all(np.abs(place - other).mean() > reach for other in places):
            kept.append(hypothesis)
            places.append(place)
        if len(kept) == at_most:
            break
    return kept
