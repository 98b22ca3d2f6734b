"""Sub-pixel registration of two vessel maps by Gauss-Newton: affine, then quadratic.

Minimises sum_i rho(M(T(x_i)) - g F(x_i) - o) over the parameters of T, a gain g and an offset o,
with Cauchy's rho, at the points x_i of the fixed map F where it has structure, from coarse to fine
(Lucas and Kanade 1981; Baker and Matthews 2004; Thevenaz et al. 1998 for the pyramid).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retreg_server.registration.fundus.pixel_maps import QuadraticMap
from retreg_server.registration.fundus.vessel_pyramid import VesselPyramidLevel, sampled, values_at

FEWEST_POINTS = 200
ITERATIONS = 10
CONVERGED = 0.01  # pixels of the level
CAUCHY = 2.4  # robust deviations
ROOM = 1.5  # radius of a quadratic map over the radius of the points that determine it
BEND_PRIOR = 0.006  # of the radius: the expected bend of a retina between two views
PIXELS_PER_SAMPLE = 20.0  # neighbouring pixels are not independent evidence for a bend


def refined_affine(
    start: np.ndarray,
    fixed: list[VesselPyramidLevel],
    moving: list[VesselPyramidLevel],
    iterations: int = ITERATIONS,
) -> np.ndarray:
    """The (3, 3) affine near start that aligns the maps best; start when too little overlaps."""
    current = QuadraticMap.from_affine(start, np.zeros(2), 1.0)
    for fixed_level, moving_level in zip(fixed, moving, strict=True):
        current = _refined(current, fixed_level, moving_level, 3, iterations)
    return current.affine


def refined_quadratic(
    start: np.ndarray,
    fixed: list[VesselPyramidLevel],
    moving: list[VesselPyramidLevel],
    iterations: int = ITERATIONS,
) -> QuadraticMap:
    """The quadratic map near the (3, 3) affine start; close to affine when little overlaps."""
    centre, radius = _support(start, fixed[-1], moving[-1])
    current = QuadraticMap.from_affine(start, centre, radius)
    for fixed_level, moving_level in zip(fixed, moving, strict=True):
        current = _refined(current, fixed_level, moving_level, 6, iterations)
    return current


def _support(
    start: np.ndarray, fixed: VesselPyramidLevel, moving: VesselPyramidLevel
) -> tuple[np.ndarray, float]:
    """Centre and radius of the part of the fixed map that the moving one shows."""
    points = fixed.structured_points
    mapped = points @ start[:2, :2].T + start[:2, 2]
    _, shown = values_at(moving, mapped)
    points = points[shown] if shown.sum() > FEWEST_POINTS else points
    centre = points.mean(axis=0)
    radius = ROOM * float(np.percentile(np.linalg.norm(points - centre, axis=1), 95))
    return centre, max(radius, 1.0)


def _refined(
    current: QuadraticMap,
    fixed: VesselPyramidLevel,
    moving: VesselPyramidLevel,
    terms: int,
    iterations: int,
) -> QuadraticMap:
    points = fixed.structured_points
    values, _ = values_at(fixed, points)
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
