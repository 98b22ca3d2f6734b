"""How well two vessel maps agree under a transform, and what that is worth against chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retreg_server.registration.parametric_refinement import Level, sampled

STRIDE = 5  # full-size pixels between the places that are compared
CHANCE_TRIALS = 32
CHANCE_POINTS = 3000
SEED = 7

PixelMap = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """correlation over the overlap; its distance from chance in deviations; overlap from 0 to 1."""

    correlation: float
    deviations: float
    overlap: float


def linear_map(matrix: np.ndarray) -> PixelMap:
    """The (3, 3) matrix as a map of points (n, 2)."""
    linear, shift = matrix[:2, :2].T, matrix[:2, 2]

    def mapped(points: np.ndarray) -> np.ndarray:
        result: np.ndarray = points @ linear + shift
        return result

    return mapped


def agreement(fixed: Level, moving: Level, mapped: PixelMap) -> Agreement:
    """Compare two levels under a map of full-size pixel points (n, 2) to (n, 2).

    Chance is the distribution of the correlation after random further shifts and turns.
    """
    points = lattice(fixed, STRIDE)
    values = sampled(fixed, points)[0][:, 0]
    targets = mapped(points)
    correlation, overlap = _correlation(values, moving, targets)
    keep = slice(None, None, max(1, len(points) // CHANCE_POINTS))
    trials = [
        _correlation(values[keep], moving, disturbed)[0] for disturbed in _disturbed(targets[keep])
    ]
    deviation = float(np.std(trials)) + 1e-6
    return Agreement(correlation, (correlation - float(np.mean(trials))) / deviation, overlap)


def alikeness(fixed: Level, moving: Level, mapped: PixelMap) -> float:
    """One number that grows with the correlation and the overlap, to compare two maps."""
    points = lattice(fixed, STRIDE)
    values = sampled(fixed, points)[0][:, 0]
    correlation, overlap = _correlation(values, moving, mapped(points))
    return correlation * float(np.sqrt(overlap))


def lattice(level: Level, stride: float) -> np.ndarray:
    """Full-size points (n, 2), stride pixels apart, that are valid in the level."""
    height, width = np.array(level.valid.shape) * level.factor
    x, y = np.meshgrid(np.arange(0, width, stride), np.arange(0, height, stride))
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    valid: np.ndarray = points[sampled(level, points)[1]]
    return valid


def _correlation(values: np.ndarray, moving: Level, targets: np.ndarray) -> tuple[float, float]:
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
