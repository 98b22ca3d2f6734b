"""Smooth random fields: the texture of everything that the phantoms show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], wavelength: float) -> np.ndarray:
    """A smooth random field of the given shape with zero mean and unit deviation, float32.

    wavelength: roughly the distance in samples from one hill to the next.
    """
    coarse = [max(4, int(np.ceil(2 * n / wavelength)) + 3) for n in shape]
    knots = rng.standard_normal(coarse).astype(np.float32)
    position = np.meshgrid(
        *(np.linspace(1, c - 2, n, dtype=np.float32) for n, c in zip(shape, coarse, strict=True)),
        indexing="ij",
        sparse=True,
    )
    return _standardised(_separable_cubic(knots, [p.ravel() for p in position]))


def _separable_cubic(knots: np.ndarray, positions: Sequence[np.ndarray]) -> np.ndarray:
    """Cubic B-spline with the given coefficients, at the product of positions along the axes."""
    field = knots
    for axis, position in enumerate(positions):
        first = np.clip(np.floor(position).astype(int) - 1, 0, knots.shape[axis] - 4)
        t = position - first - 1
        weights = np.zeros((len(position), knots.shape[axis]), dtype=np.float32)
        basis = (
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        )
        for offset, weight in enumerate(basis):
            weights[np.arange(len(position)), first + offset] = weight
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return field


def _standardised(field: np.ndarray) -> np.ndarray:
    return np.asarray((field - field.mean()) / field.std(), dtype=np.float32)


def ridges(field: np.ndarray, width: float) -> np.ndarray:
    """Narrow crests, from 0 to 1, along the zero lines of a smooth field: a random net."""
    steepness = np.sqrt(sum(g**2 for g in np.gradient(field)))
    return np.asarray(np.exp(-((field / (steepness * width + 1e-6)) ** 2)), dtype=np.float32)


def sample(field: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear interpolation of field at positions (ndim, ...) in samples; clamps at the edges."""
    return np.asarray(ndimage.map_coordinates(field, positions, order=1, mode="nearest"))
