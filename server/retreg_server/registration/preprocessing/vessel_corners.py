"""Where vessels branch, cross and bend: the corners of Shi and Tomasi (1994) of a vessel map."""

from __future__ import annotations

import cv2
import numpy as np

REACH = 9  # pixels over which the directions of vessels are compared


def vessel_corners(
    strength: np.ndarray, inside: np.ndarray, at_most: int, weakest: float, apart: float
) -> np.ndarray:
    """Pixels x, y (n, 2) float64 of a map (h, w) float32, strongest first.

    inside: (h, w) bool, where corners are wanted. weakest: as a share of the strongest. apart:
    pixels between any two.
    """
    found = cv2.goodFeaturesToTrack(
        strength, at_most, weakest, apart, mask=inside.astype(np.uint8), blockSize=REACH
    )
    if found is None:
        return np.zeros((0, 2))
    corners: np.ndarray = found.reshape(-1, 2).astype(np.float64)
    return corners
