"""Maps of blood vessels that look alike in colour, red-free, infrared and angiography.

Vessels are dark in some pictures and bright in others. Both kinds of ridges are measured by the
eigenvalues of the Hessian at several scales (Frangi et al. 1998; Lindeberg 1998 for the powers of
the scale), and the kind that stands out more is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from retreg_server.registration.numerics.percentiles import percentile

SCALES = (2.0, 3.0, 4.5)  # standard deviations in pixels of a 768-pixel field of view
COHERENCE = 1.0  # scales over which the direction of a ridge must persist
BACKGROUND = 0.03  # of the field of view
RIM = 12  # pixels next to the rim of the field of view, where edges imitate vessels
BRIGHT_END = 99.0  # percentile that becomes 1
FAINTEST = 0.005  # ridges below it, in units of the local deviation, are rounding errors


@dataclass(frozen=True, eq=False)
class VesselMaps:
    """Ridges of both polarities, (h, w) float32 from 0 to 1, and where they are valid.

    strongest_first holds the map whose ridges stand out more, then the other one. stronger: what
    the vessels of the first map are in the picture.
    """

    strongest_first: tuple[np.ndarray, np.ndarray]
    valid: np.ndarray
    stronger: Literal["dark", "bright"]

    @property
    def best(self) -> np.ndarray:
        return self.strongest_first[0]


def vessel_maps(grey: np.ndarray, inside: np.ndarray) -> VesselMaps:
    """The vessels of a picture (h, w) float32 in its field of view (h, w) bool."""
    valid = eroded(inside, RIM)
    dark, bright = _ridges(flattened(grey, inside))
    dark[~valid] = 0
    bright[~valid] = 0
    energies = [float(np.square(ridge, dtype=np.float64).sum()) for ridge in (dark, bright)]
    maps = _standardised(dark, valid), _standardised(bright, valid)
    if energies[0] >= energies[1]:
        return VesselMaps(maps, valid, "dark")
    return VesselMaps(maps[::-1], valid, "bright")


def flattened(grey: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The picture minus its local mean, divided by its local deviation; 0 outside the field."""
    weight = inside.astype(np.float32)
    sigma = BACKGROUND * max(grey.shape)
    mean = _local_mean(grey * weight, weight, sigma)
    flat = (grey - mean) * weight
    deviation = cv2.sqrt(np.maximum(_local_mean(flat * flat, weight, 2 * sigma), 0))
    # Flat regions are not blown up beyond a fifth of the usual contrast.
    floor = 0.2 * percentile(deviation[inside], 50) if inside.any() else 1.0
    even: np.ndarray = flat / np.maximum(deviation, max(floor, 1e-4))
    return even


def _local_mean(weighted: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the values under the weights, computed at a quarter of the size."""
    size = weighted.shape[1] // 4, weighted.shape[0] // 4
    sums, counts = (
        cv2.GaussianBlur(cv2.resize(x, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / 4)
        for x in (weighted, weight)
    )
    mean = sums / np.maximum(counts, 1e-3)
    full: np.ndarray = cv2.resize(mean, weighted.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return full


def _ridges(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strength of dark and of bright ridges, the maximum over the scales."""
    dark = np.zeros_like(flat)
    bright = np.zeros_like(flat)
    for sigma in SCALES:
        smooth = cv2.GaussianBlur(flat, (0, 0), sigma)
        norm = sigma**2 / 4  # Sobel's 3 x 3 kernel sums to 4 times the second derivative
        xx, yy, xy = (
            cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=norm)
            for order in ((2, 0), (0, 2), (1, 1))
        )
        half_trace = (xx + yy) / 2
        half_gap = cv2.magnitude((xx - yy) / 2, xy)
        # The eigenvalues are half_trace +- half_gap. Their difference is large on ridges and small
        # on blobs, their sum is large on ridges and small on edges and saddles.
        likeness = half_gap * _coherence((xx - yy) / 2, xy, half_gap, COHERENCE * sigma)
        np.maximum(dark, np.minimum(likeness, half_trace), out=dark)
        np.maximum(bright, np.minimum(likeness, -half_trace), out=bright)
    return dark, bright


def _coherence(
    cosine: np.ndarray, sine: np.ndarray, strength: np.ndarray, sigma: float
) -> np.ndarray:
    """How well the ridges around a pixel agree in direction, from 0 (noise) to 1 (a line).

    cosine, sine: strength times the cosine and sine of twice the angle of the ridge.
    """
    cosine, sine, strength = (cv2.GaussianBlur(x, (0, 0), sigma) for x in (cosine, sine, strength))
    squared = (cosine * cosine + sine * sine) / np.maximum(strength * strength, 1e-12)
    agreement: np.ndarray = np.minimum(squared, 1)
    return agreement


def _standardised(ridge: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Square root of the ridge, scaled so that its strongest vessels are 1."""
    top = percentile(ridge[valid], BRIGHT_END) if valid.any() else 0.0
    if top < FAINTEST:
        return np.zeros_like(ridge)
    root: np.ndarray = cv2.sqrt(np.clip(ridge / top, 0, 1))
    return root


def eroded(inside: np.ndarray, radius: int) -> np.ndarray:
    """The points of the mask (h, w) bool further than radius from its rim and from the frame."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    shrunk = cv2.erode(
        inside.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    kept: np.ndarray = shrunk.astype(bool)
    return kept
