"""Smoothing thin-plate splines in closed form, in float64.

For control points p and q the spline minimises
    sum_i w_i |f(p_i) - q_i|^2 + lambda * bending energy(f)
(Wahba 1990, Spline Models for Observational Data, ch. 2; Bookstein 1989 for lambda = 0), which is
    [ K + lambda diag(1/w)   P ] [c]   [Q]
    [ P^T                    0 ] [a] = [0].
K holds -r, the biharmonic kernel in three dimensions with the sign that makes it conditionally
positive definite, so that lambda is added. It is also used in planes, since it is the only kernel
that Slicer can store; "r2logr" is the thin-plate kernel of the plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from retreg.closed_form import PointPairs, affine_matrix
from retreg.errors import DegeneratePointsError, InputError
from retreg.geometry import apply_matrix

Kernel = Literal["r", "r2logr"]
CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Spline:
    """f(x) = affine · x + sum_i coefficients_i U(|x - centres_i|).

    affine: (4, 4). centres, coefficients: (n, 3).
    """

    affine: np.ndarray
    centres: np.ndarray
    coefficients: np.ndarray
    kernel: Kernel

    def __call__(self, points: np.ndarray) -> np.ndarray:
        out = apply_matrix(self.affine, points)
        if not self.coefficients.any():
            return out
        for start in range(0, len(points), CHUNK):
            part = slice(start, start + CHUNK)
            out[part] += kernel_matrix(points[part], self.centres, self.kernel) @ self.coefficients
        return out


def kernel_matrix(points: np.ndarray, centres: np.ndarray, kernel: Kernel) -> np.ndarray:
    """U(|point - centre|) for points (m, 3) and centres (n, 3); returns (m, n)."""
    squared = np.zeros((len(points), len(centres)))
    for axis in range(3):
        squared += np.subtract.outer(points[:, axis], centres[:, axis]) ** 2
    if kernel == "r":
        return -np.sqrt(squared)
    return 0.5 * squared * np.log(squared, out=np.zeros_like(squared), where=squared > 0)


def fit_spline(
    fixed_points: np.ndarray,
    moving_points: np.ndarray,
    smoothing: float,
    weights: np.ndarray | None,
    kernel: Kernel,
) -> Spline:
    """Solve the system above for points (n, 3) LPS mm.

    smoothing is dimensionless: lambda = smoothing * L for the kernel r and smoothing * L^2 for
    r2logr, where L is the root mean square distance of the fixed points from their centroid.
    Weights are divided by their mean. Points in one plane (a picture) are handled there; the
    direction across the plane follows the affine fit.
    Raises DegeneratePointsError for too few, collinear or (without smoothing) coincident points,
    and InputError for a negative smoothing or unknown kernel.
    """
    if kernel not in ("r", "r2logr"):
        raise InputError(f"The kernel {kernel!r} is unknown; use 'r' or 'r2logr'.")
    if not smoothing >= 0:
        raise InputError(f"The smoothing {smoothing} is negative; use a number from 0 upwards.")
    pairs = PointPairs.checked(fixed_points, moving_points, weights)
    affine = affine_matrix(pairs)
    if np.isinf(smoothing):
        return Spline(affine, pairs.fixed, np.zeros_like(pairs.fixed), kernel)
    # The least-squares affine is taken out first: the spline then only carries the residual, which
    # keeps the system well scaled and gives planes their normal direction.
    residual = pairs.moving - apply_matrix(affine, pairs.fixed)
    length = pairs.length_mm
    scaled = (pairs.fixed - pairs.fixed_centroid) / length
    system = kernel_matrix(scaled, scaled, kernel)
    system[np.diag_indices_from(system)] += smoothing / pairs.weights
    if smoothing == 0:
        _refuse_coincident(pairs.fixed, length)
    basis = np.column_stack([np.ones(len(scaled)), scaled @ pairs.fixed_axes])
    n, m = basis.shape
    full = np.block([[system, basis], [basis.T, np.zeros((m, m))]])
    solution = np.linalg.solve(full, np.vstack([residual, np.zeros((m, 3))]))
    linear = (pairs.fixed_axes @ solution[n + 1 :] / length).T
    polynomial = np.zeros((4, 4))
    polynomial[:3, :3] = linear
    polynomial[:3, 3] = solution[n] - linear @ pairs.fixed_centroid
    if kernel == "r":
        return Spline(affine + polynomial, pairs.fixed, solution[:n] / length, kernel)
    # U(r / L) = U(r) / L^2 - r^2 log(L) / L^2, and the last term is affine because the
    # coefficients are orthogonal to every affine function; it is taken over in closed form.
    coefficients = solution[:n] / length**2
    shift = _squared_distance_part(pairs.fixed, coefficients, np.log(length))
    return Spline(affine + polynomial - shift, pairs.fixed, coefficients, kernel)


def _squared_distance_part(centres: np.ndarray, c: np.ndarray, factor: float) -> np.ndarray:
    """(4, 4) of x -> factor * sum_i c_i |x - p_i|^2, which is affine when sum c = sum c p = 0."""
    matrix = np.zeros((4, 4))
    matrix[:3, :3] = -2 * factor * c.T @ centres
    matrix[:3, 3] = factor * (c * (centres**2).sum(axis=1, keepdims=True)).sum(axis=0)
    return matrix


def _refuse_coincident(points: np.ndarray, length: float) -> None:
    rounded = np.round(points / (1e-9 * length))
    duplicates = len(points) - len(np.unique(rounded, axis=0))
    if duplicates:
        raise DegeneratePointsError(
            f"{duplicates} of the {len(points)} fixed points coincide with another one; remove "
            "them or use a smoothing above 0."
        )
