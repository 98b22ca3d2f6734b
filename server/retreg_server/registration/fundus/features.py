"""Local features of two pictures, their matches, and the affine map that most of them support."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

SCALE_RANGE = (0.3, 3.3)  # the search looks from 0.33 to 3
MOST_ANISOTROPIC = 1.4
RANSAC_CONFIDENCE = 0.9999
RANSAC_ROUNDS = 10_000


@dataclass(frozen=True, eq=False)
class Features:
    """Points (n, 2) in pixels and their descriptors (n, 128), float32 of unit length."""

    points: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of points (n, 2) and how much better each is than the next best, from 0 to 1."""

    fixed: np.ndarray
    moving: np.ndarray
    distinctness: np.ndarray

    def __len__(self) -> int:
        return len(self.fixed)

    @property
    def swapped(self) -> Matches:
        return Matches(self.moving, self.fixed, self.distinctness)


@dataclass(frozen=True, eq=False)
class RobustFit:
    """An affine map (3, 3), and which matches (n,) it explains."""

    moving_from_fixed: np.ndarray
    inliers: np.ndarray

    @property
    def count(self) -> int:
        return int(self.inliers.sum())


class Method(NamedTuple):
    """How points of two pictures are found and matched: a learned method is another one.

    detect: features of a vessel map (h, w) from 0 to 1, where it is valid (h, w) bool. match:
    pairs of them, judged from the fixed and from the moving picture; the second has its fixed and
    moving points exchanged. strong_count, strong_ratio: inliers, and their share of the matches,
    that two different eyes do not reach. polarities: on how many pairs of ridges (see
    global_alignment) it is worth its time.
    """

    detect: Callable[[np.ndarray, np.ndarray], Features]
    match: Callable[[Features, Features], tuple[Matches, Matches]]
    strong_count: int = 18  # with SIFT two different eyes reach about 8
    strong_ratio: float = 0.08
    polarities: int = 1

    def is_strong(self, fit: RobustFit | None) -> bool:
        """Whether so many matches agree on one map that it is to be believed."""
        return (
            fit is not None
            and fit.count >= self.strong_count
            and fit.count >= self.strong_ratio * len(fit.inliers)
        )


def sift_features(
    picture: np.ndarray, valid: np.ndarray, at_most: int, contrast: float
) -> Features:
    """SIFT (Lowe 2004) of a picture (h, w) from 0 to 1 where valid, as RootSIFT.

    RootSIFT (Arandjelovic and Zisserman 2012) takes the root of the L1-normalised descriptor.
    """
    sift = cv2.SIFT_create(nfeatures=at_most, contrastThreshold=contrast)
    pixels = np.rint(255 * picture).astype(np.uint8)
    keypoints, descriptors = sift.detectAndCompute(pixels, valid.astype(np.uint8))
    if descriptors is None:
        return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    points = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64)
    sums = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return Features(points, np.sqrt(descriptors / sums))


def matched_both_ways(
    fixed: Features, moving: Features, ratio: float
) -> tuple[Matches, Matches]:
    """Mutual nearest neighbours, once judged from the fixed and once from the moving picture.

    A pair is kept when its distance is below ratio times that of the second best (Lowe 2004). The
    second result has its fixed and moving points exchanged.
    """
    if min(len(fixed), len(moving)) < 2:
        nothing = Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
        return nothing, nothing
    similarity = fixed.descriptors @ moving.descriptors.T
    best_moving, best_fixed = similarity.argmax(axis=1), similarity.argmax(axis=0)
    mutual = np.flatnonzero(best_fixed[best_moving] == np.arange(len(fixed)))
    partner = best_moving[mutual]
    forward = _ratio(similarity[mutual])
    backward = _ratio(similarity[:, partner].T)

    def kept(ratios: np.ndarray) -> Matches:
        good = ratios < ratio
        return Matches(fixed.points[mutual[good]], moving.points[partner[good]], 1 - ratios[good])

    return kept(forward), kept(backward).swapped


def _ratio(similarity: np.ndarray) -> np.ndarray:
    """Distance of the best over that of the second best, for each row of cosines."""
    second, first = np.partition(similarity, -2, axis=1)[:, -2:].T
    distance = np.sqrt(np.maximum(2 - 2 * np.stack([first, second]), 0))
    ratios: np.ndarray = distance[0] / np.maximum(distance[1], 1e-9)
    return ratios


def ransac_affine(matches: Matches, tolerance: float, seed: int) -> RobustFit | None:
    """The affine supported within tolerance pixels (MAGSAC++, Barath et al. 2020).

    None when there is none that a camera could have made.
    """
    if len(matches) < 4:
        return None
    parameters = cv2.UsacParams()
    parameters.threshold = tolerance
    parameters.confidence = RANSAC_CONFIDENCE
    parameters.maxIterations = RANSAC_ROUNDS
    parameters.randomGeneratorState = seed
    parameters.score = cv2.SCORE_METHOD_MAGSAC
    parameters.loMethod = cv2.LOCAL_OPTIM_SIGMA
    matrix, inliers = cv2.estimateAffine2D(matches.fixed, matches.moving, parameters)
    if matrix is None or not np.isfinite(matrix).all():
        return None
    matrix = np.vstack([matrix, [0, 0, 1]])
    if not is_plausible(matrix):
        return None
    return RobustFit(matrix, inliers.ravel().astype(bool))


def is_plausible(moving_from_fixed: np.ndarray) -> bool:
    """Whether a camera could have made the (3, 3) map: no mirror, no large stretch or scale."""
    linear = moving_from_fixed[:2, :2]
    large, small = np.linalg.svd(linear, compute_uv=False)
    scale = np.sqrt(large * small)
    return bool(
        np.linalg.det(linear) > 0
        and SCALE_RANGE[0] < scale < SCALE_RANGE[1]
        and large < MOST_ANISOTROPIC * small
    )


SIFT_ON_VESSELS = Method(
    partial(sift_features, at_most=1200, contrast=0.02), partial(matched_both_ways, ratio=0.92)
)
