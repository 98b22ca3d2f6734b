"""Pairs of points in pixels, and maps from fixed to moving pixels: linear and quadratic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PixelMap = Callable[[np.ndarray], np.ndarray]


def linear_map(matrix: np.ndarray) -> PixelMap:
    """The (3, 3) matrix as a map of points (n, 2)."""
    linear, shift = matrix[:2, :2].T, matrix[:2, 2]

    def mapped(points: np.ndarray) -> np.ndarray:
        result: np.ndarray = points @ linear + shift
        return result

    return mapped


@dataclass(frozen=True, eq=False)
class PixelPairs:
    """Points (n, 2) in fixed and moving pixels, weights (n,) and inlier states (n,)."""

    fixed: np.ndarray
    moving: np.ndarray
    weights: np.ndarray
    inliers: np.ndarray


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
