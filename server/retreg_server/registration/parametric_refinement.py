"""Sub-pixel registration of two vessel maps by Gauss-Newton: affine, then quadratic.

Minimises sum_i rho(M(T(x_i)) - g F(x_i) - o) over the parameters of T, a gain g and an offset o,
with Cauchy's rho, at the points x_i of the fixed map F where it has structure, from coarse to fine
(Lucas and Kanade 1981; Baker and Matthews 2004; Thevenaz et al. 1998 for the pyramid).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

MOST_POINTS = 6000
FEWEST_POINTS = 200
STRUCTURED = 60  # percentile of the slopes above which a pixel is used
ITERATIONS = 10
CONVERGED = 0.01  # pixels of the level
CAUCHY = 2.4  # robust deviations
ROOM = 1.5  # radius of a quadratic map over the radius of the points that determine it
BEND_PRIOR = 0.006  # of the radius: the expected bend of a retina between two views
PIXELS_PER_SAMPLE = 20.0  # neighbouring pixels are not independent evidence for a bend


@dataclass(frozen=True, eq=False)
class Level:
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
        threshold = np.percentile(positive, STRUCTURED) if positive.size else 0.0
        chosen = np.flatnonzero(strength.ravel() > threshold)
        chosen = chosen[:: max(1, len(chosen) // MOST_POINTS)]
        y, x = np.divmod(chosen, self.valid.shape[1])
        return (np.column_stack([x, y]) + 0.5) * self.factor - 0.5


@dataclass(frozen=True, eq=False)
class QuadraticMap:
    """moving = coefficients · (1, u, v, s^2, s t, t^2), (u, v) = (fixed - centre) / radius.

    (s, t) is (u, v) drawn back into the unit circle, which changes little up to half the radius:
    far from the points that determined it the map continues as an affine one.
    coefficients: (2, 6). centre: (2,), radius: place and extent in pixels.
    """

    coefficients: np.ndarray
    centre: np.ndarray
    radius: float

    @classmethod
    def from_affine(
        cls, moving_from_fixed: np.ndarray, centre: np.ndarray, radius: float
    ) -> QuadraticMap:
        linear, shift = moving_from_fixed[:2, :2], moving_from_fixed[:2, 2]
        first = np.column_stack([linear @ centre + shift, linear * radius])
        return cls(np.hstack([first, np.zeros((2, 3))]), centre, radius)

    @property
    def affine(self) -> np.ndarray:
        """The (3, 3) affine part."""
        matrix = np.eye(3)
        matrix[:2, :2] = self.coefficients[:, 1:3] / self.radius
        matrix[:2, 2] = self.coefficients[:, 0] - matrix[:2, :2] @ self.centre
        return matrix

    def bend(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) what the map adds to its affine part at points (n, 2) of the fixed picture."""
        bend: np.ndarray = self.basis(points)[:, 3:] @ self.coefficients[:, 3:].T
        return bend

    def basis(self, points: np.ndarray) -> np.ndarray:
        """(n, 6) the functions that the coefficients multiply."""
        u, v = ((points - self.centre) / self.radius).T
        drawn_back = (1 + (u * u + v * v) ** 2) ** -0.25
        s, t = u * drawn_back, v * drawn_back
        return np.column_stack([np.ones_like(u), u, v, s * s, s * t, t * t])

    def __call__(self, points: np.ndarray) -> np.ndarray:
        matrix = self.affine
        mapped: np.ndarray = points @ matrix[:2, :2].T + matrix[:2, 2] + self.bend(points)
        return mapped


def pyramid(vessels: np.ndarray, valid: np.ndarray, factors: tuple[int, ...]) -> list[Level]:
    """The map (h, w) smoothed and shrunk by each factor."""
    levels = []
    for factor in factors:
        size = max(8, vessels.shape[1] // factor), max(8, vessels.shape[0] // factor)
        small = cv2.resize(vessels, size, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), 1.2)
        slope_x = cv2.Sobel(small, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
        slope_y = cv2.Sobel(small, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
        shown = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        levels.append(Level(np.dstack([small, slope_x, slope_y]), shown > 0, factor))
    return levels


def refined_affine(
    start: np.ndarray, fixed: list[Level], moving: list[Level], iterations: int = ITERATIONS
) -> np.ndarray:
    """The (3, 3) affine near start that aligns the maps best; start when too little overlaps."""
    current = QuadraticMap.from_affine(start, np.zeros(2), 1.0)
    for fixed_level, moving_level in zip(fixed, moving, strict=True):
        current = _refined(current, fixed_level, moving_level, 3, iterations)
    return current.affine


def refined_quadratic(
    start: np.ndarray, fixed: list[Level], moving: list[Level], iterations: int = ITERATIONS
) -> QuadraticMap:
    """The quadratic map near the (3, 3) affine start; close to affine when little overlaps."""
    centre, radius = _support(start, fixed[-1], moving[-1])
    current = QuadraticMap.from_affine(start, centre, radius)
    for fixed_level, moving_level in zip(fixed, moving, strict=True):
        current = _refined(current, fixed_level, moving_level, 6, iterations)
    return current


def _support(start: np.ndarray, fixed: Level, moving: Level) -> tuple[np.ndarray, float]:
    """Centre and radius of the part of the fixed map that the moving one shows."""
    points = fixed.structured_points
    mapped = points @ start[:2, :2].T + start[:2, 2]
    _, shown = sampled(moving, mapped)
    points = points[shown] if shown.sum() > FEWEST_POINTS else points
    centre = points.mean(axis=0)
    radius = ROOM * float(np.percentile(np.linalg.norm(points - centre, axis=1), 95))
    return centre, max(radius, 1.0)


def _refined(
    current: QuadraticMap, fixed: Level, moving: Level, terms: int, iterations: int
) -> QuadraticMap:
    points = fixed.structured_points
    values = sampled(fixed, points)[0][:, 0]
    basis = current.basis(points)[:, :terms]
    for _ in range(iterations):
        samples, shown = sampled(moving, current(points))
        if shown.sum() < FEWEST_POINTS:
            return current
        step = _step(values[shown], samples[shown], basis[shown], current, moving.factor)
        coefficients = current.coefficients.copy()
        coefficients[:, :terms] += step
        current = replace(current, coefficients=coefficients)
        if np.abs(basis @ step.T).max() < CONVERGED * fixed.factor:
            break
    return current


def _step(
    values: np.ndarray, samples: np.ndarray, basis: np.ndarray, current: QuadraticMap, factor: int
) -> np.ndarray:
    """The Gauss-Newton step (2, terms) of the coefficients, robust and regularised."""
    terms = basis.shape[1]
    plain = np.column_stack([values, np.ones_like(values)])
    gain_offset = np.linalg.lstsq(plain, samples[:, 0], rcond=None)[0]
    residual = samples[:, 0] - plain @ gain_offset
    deviation = 1.4826 * np.median(np.abs(residual)) + 1e-6
    weight = 1 / (1 + (residual / (CAUCHY * deviation)) ** 2)
    slopes = samples[:, 1:] / factor
    jacobian = np.hstack([slopes[:, :1] * basis, slopes[:, 1:] * basis, -plain])
    weighted = jacobian * weight[:, None]
    normal = jacobian.T @ weighted
    gradient = weighted.T @ residual
    prior = np.zeros(len(normal))
    if terms > 3:
        strength = PIXELS_PER_SAMPLE * deviation**2 / (BEND_PRIOR * current.radius) ** 2
        for axis in range(2):
            bends = slice(axis * terms + 3, (axis + 1) * terms)
            prior[bends] = strength
            gradient[bends] += strength * current.coefficients[axis, 3:]
    normal[np.diag_indices_from(normal)] += prior + 1e-9 * np.trace(normal)
    solution = -np.linalg.solve(normal, gradient)
    step: np.ndarray = solution[: 2 * terms].reshape(2, terms)
    return step


def sampled(level: Level, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map and gradients (n, 3) at full-size points (n, 2), and whether each lies in the field."""
    height, width = level.valid.shape
    x, y = ((points + 0.5) / level.factor - 0.5).T
    shown = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    column = np.clip(x, 0, width - 1.001).astype(np.int64)
    row = np.clip(y, 0, height - 1.001).astype(np.int64)
    right = np.clip(x - column, 0, 1).astype(np.float32)[:, None]
    down = np.clip(y - row, 0, 1).astype(np.float32)[:, None]
    flat = level.samples.reshape(-1, level.samples.shape[2])
    start = row * width + column
    upper = flat[start] * (1 - right) + flat[start + 1] * right
    lower = flat[start + width] * (1 - right) + flat[start + width + 1] * right
    shown &= level.valid.ravel()[start]
    return upper * (1 - down) + lower * down, shown
