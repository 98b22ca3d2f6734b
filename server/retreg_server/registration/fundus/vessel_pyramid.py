"""Vessel maps at several resolutions, displacements on their pixels, and how well maps agree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from retreg_server.registration.fundus.pixel_maps import PixelMap
from retreg_server.registration.numerics.percentiles import percentile

STRIDE = 5  # full-size pixels between the places that are compared
CHANCE_TRIALS = 32
CHANCE_POINTS = 3000
SEED = 7
MOST_POINTS = 6000
STRUCTURED = 60  # percentile of the slopes above which a pixel is used


@dataclass(frozen=True, eq=False)
class VesselPyramidLevel:
    """One level of a pyramid: map, gradients (h, w, 3) float32, valid (h, w), pixels per pixel."""

    samples: np.ndarray
    valid: np.ndarray
    factor: int

    @cached_property
    def structured_points(self) -> np.ndarray:
        """At most MOST_POINTS full-size points (n, 2) where the map has an edge or a ridge."""
        strength = np.abs(self.samples[..., 1]) + np.abs(self.samples[..., 2])
        strength[~self.valid] = 0
        positive = strength[:: max(1, 4 // self.factor)].ravel()
        positive = positive[positive > 0]
        threshold = percentile(positive, STRUCTURED) if positive.size else 0.0
        chosen = np.flatnonzero(strength.ravel() > threshold)
        chosen = chosen[:: max(1, len(chosen) // MOST_POINTS)]
        y, x = np.divmod(chosen, self.valid.shape[1])
        return (np.column_stack([x, y]) + 0.5) * self.factor - 0.5

    @cached_property
    def compared(self) -> tuple[np.ndarray, np.ndarray]:
        """Full-size points (n, 2) STRIDE apart in the field, and the map (n,) there."""
        points = lattice(self, STRIDE)
        return points, sampled(self, points)[0][:, 0]


def pyramid(
    vessels: np.ndarray, valid: np.ndarray, factors: tuple[int, ...]
) -> list[VesselPyramidLevel]:
    """The map (h, w) smoothed and shrunk by each factor."""
    levels = []
    for factor in factors:
        size = max(8, vessels.shape[1] // factor), max(8, vessels.shape[0] // factor)
        small = cv2.resize(vessels, size, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), 1.2)
        slope_x = cv2.Sobel(small, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
        slope_y = cv2.Sobel(small, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
        shown = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        levels.append(VesselPyramidLevel(np.dstack([small, slope_x, slope_y]), shown > 0, factor))
    return levels


@dataclass(frozen=True, eq=False)
class PixelDisplacement:
    """Displacements d on nodes that are factor pixels apart: x goes to x + d(x).

    vectors: (h, w, 2) float32, in full-size pixels. It is a map of points (n, 2) itself.
    """

    vectors: np.ndarray
    factor: int

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> PixelDisplacement:
        """No displacement anywhere in a picture of the shape (h, w)."""
        return cls(np.zeros((2, 2, 2), np.float32), max(shape))

    def at(self, points: np.ndarray) -> np.ndarray:
        """d (n, 2) at full-size points (n, 2)."""
        return _bilinear(self.vectors, self.factor, points)[0]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        moved: np.ndarray = points + self.at(points)
        return moved


def sampled(level: VesselPyramidLevel, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map and gradients (n, 3) at full-size points (n, 2), and whether each lies in the field."""
    values, start, shown = _bilinear(level.samples, level.factor, points)
    shown &= level.valid.ravel()[start]
    return values, shown


def _bilinear(
    samples: np.ndarray, factor: int, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples (h, w, c) at full-size points (n, 2), the flat index of the upper left neighbour of
    each, and whether it lies between the nodes."""
    height, width, channels = samples.shape
    x, y = ((points + 0.5) / factor - 0.5).T
    shown = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    column = np.clip(x, 0, width - 1.001).astype(np.int64)
    row = np.clip(y, 0, height - 1.001).astype(np.int64)
    right = np.clip(x - column, 0, 1).astype(np.float32)[:, None]
    down = np.clip(y - row, 0, 1).astype(np.float32)[:, None]
    flat = samples.reshape(-1, channels)
    start = row * width + column
    corners = (flat.take(start + step, axis=0) for step in (0, 1, width, width + 1))
    upper = next(corners) * (1 - right) + next(corners) * right
    lower = next(corners) * (1 - right) + next(corners) * right
    return upper * (1 - down) + lower * down, start, shown


@dataclass(frozen=True)
class Agreement:
    """correlation over the overlap; its distance from chance in deviations; overlap from 0 to 1."""

    correlation: float
    deviations: float
    overlap: float


def agreement(fixed: VesselPyramidLevel, moving: VesselPyramidLevel, mapped: PixelMap) -> Agreement:
    """Compare two levels under a map of full-size pixel points (n, 2) to (n, 2).

    Chance is the distribution of the correlation after random further shifts and turns.
    """
    points, values = fixed.compared
    if len(points) == 0:  # a picture of holes
        return Agreement(0.0, 0.0, 0.0)
    targets = mapped(points)
    correlation, overlap = _correlation(values, moving, targets)
    keep = slice(None, None, max(1, len(points) // CHANCE_POINTS))
    trials = [
        _correlation(values[keep], moving, disturbed)[0] for disturbed in _disturbed(targets[keep])
    ]
    deviation = float(np.std(trials)) + 1e-6
    return Agreement(correlation, (correlation - float(np.mean(trials))) / deviation, overlap)


def vessel_similarity(
    fixed: VesselPyramidLevel, moving: VesselPyramidLevel, mapped: PixelMap
) -> float:
    """One number that grows with the correlation and the overlap, to compare two maps."""
    points, values = fixed.compared
    correlation, overlap = _correlation(values, moving, mapped(points))
    return correlation * float(np.sqrt(overlap))


def lattice(level: VesselPyramidLevel, stride: float) -> np.ndarray:
    """Full-size points (n, 2), stride pixels apart, that are valid in the level."""
    height, width = np.array(level.valid.shape) * level.factor
    x, y = np.meshgrid(np.arange(0, width, stride), np.arange(0, height, stride))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    valid: np.ndarray = points[sampled(level, points)[1]]
    return valid


def _correlation(
    values: np.ndarray, moving: VesselPyramidLevel, targets: np.ndarray
) -> tuple[float, float]:
    """Pearson's correlation of values with the moving level at targets, and the share inside."""
    samples, shown = sampled(moving, targets)
    if shown.sum() < 50:
        return 0.0, 0.0
    a, b = values[shown] - values[shown].mean(), samples[shown, 0] - samples[shown, 0].mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return (float(a @ b) / scale if scale > 0 else 0.0), float(shown.mean())


def _disturbed(targets: np.ndarray) -> list[np.ndarray]:
    """Targets after random shifts by 3 to 12 % of their extent and turns by up to 20 degrees."""
    rng = np.random.default_rng(SEED)
    centre = targets.mean(axis=0)
    extent = float(np.ptp(targets, axis=0).max())
    out = []
    for _ in range(CHANCE_TRIALS):
        angle = rng.uniform(-0.35, 0.35)
        heading, length = rng.uniform(0, 2 * np.pi), extent * rng.uniform(0.03, 0.12)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = length * np.array([np.cos(heading), np.sin(heading)])
        out.append((targets - centre) @ turn.T + centre + shift)
    return out
