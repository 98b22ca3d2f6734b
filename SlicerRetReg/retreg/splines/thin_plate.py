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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from retreg.closed_form import PointPairs, affine_matrix
from retreg.errors import DegeneratePointsError, InputError
from retreg.geometry import apply_matrix
from retreg.threads import product

Kernel = Literal["r", "r2logr"]
CHUNK = 1 << 16  # so many kernel values at a time stay in the cache


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
        rows = max(16, CHUNK // len(self.centres))
        for start in range(0, len(points), rows):
            part = slice(start, start + rows)
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


def squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(m, n) mm^2 between points (m, 3) and centres (n, 3), by one matrix product.

    Faster than differences; rounding may leave 1e-15 of the squared extent, also below zero.
    """
    left, right = distance_factors(points, centres)
    return product(left, right)


def distance_factors(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (m, 5) and (5, n) whose product are the squared distances."""
    middle = centres.mean(axis=0)
    points, centres = points - middle, centres - middle
    left = np.column_stack([points, (points**2).sum(axis=1), np.ones(len(points))])
    right = np.column_stack([-2 * centres, np.ones(len(centres)), (centres**2).sum(axis=1)])
    return left, right.T


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
    _check(smoothing, kernel)
    problem = _Problem.of(fixed_points, moving_points, weights, kernel)
    if np.isinf(smoothing):
        return problem.affine_alone
    problem.refuse_coincident(smoothing)
    system = problem.kernel_values.copy()
    system[np.diag_indices_from(system)] += smoothing / problem.pairs.weights
    n, m = problem.basis.shape
    full = np.block([[system, problem.basis], [problem.basis.T, np.zeros((m, m))]])
    solution = np.linalg.solve(full, np.vstack([problem.residual, np.zeros((m, 3))]))
    return problem.spline(solution[:n], solution[n:])


def fit_splines(
    fixed_points: np.ndarray,
    moving_points: np.ndarray,
    smoothings: Sequence[float],
    weights: np.ndarray | None,
    kernel: Kernel,
) -> tuple[Spline, ...]:
    """As fit_spline for each of smoothings, from one eigendecomposition.

    With d = W^-1/2 c the conditions of the system say that d = Z g, where the columns of Z span
    what is orthogonal to W^1/2 P; then (Z^T W^1/2 K W^1/2 Z + lambda) g = Z^T W^1/2 Q, which is
    diagonal in the eigenvectors of the matrix (Wahba 1990, eq. 1.3.16 and ch. 4).
    """
    for smoothing in smoothings:
        _check(smoothing, kernel)
    problem = _Problem.of(fixed_points, moving_points, weights, kernel)
    problem.refuse_coincident(min(smoothings, default=np.inf))
    root = np.sqrt(problem.pairs.weights)[:, None]
    system, target = root * problem.kernel_values * root.T, root * problem.residual
    orthonormal, triangle = np.linalg.qr(root * problem.basis, mode="complete")
    m = problem.basis.shape[1]
    affine_part, rest = orthonormal[:, :m], orthonormal[:, m:]
    eigenvalues, vectors = np.linalg.eigh(rest.T @ system @ rest)
    modes = rest @ vectors
    splines = []
    for smoothing in smoothings:
        if np.isinf(smoothing):
            splines.append(problem.affine_alone)
            continue
        scaled = modes @ ((modes.T @ target) / (eigenvalues + smoothing)[:, None])
        polynomial = np.linalg.solve(triangle[:m], affine_part.T @ (target - system @ scaled))
        splines.append(problem.spline(root * scaled, polynomial))
    return tuple(splines)


def _check(smoothing: float, kernel: str) -> None:
    if kernel not in ("r", "r2logr"):
        raise InputError(f"The kernel {kernel!r} is unknown; use 'r' or 'r2logr'.")
    if not smoothing >= 0:
        raise InputError(f"The smoothing {smoothing} is negative; use a number from 0 upwards.")


@dataclass(frozen=True, eq=False)
class _Problem:
    """The spline problem, centred and divided by the length L of the fixed points.

    The least-squares affine is taken out first: the spline then only carries the residual (n, 3),
    which keeps the system well scaled and gives planes their normal direction.
    """

    pairs: PointPairs
    affine: np.ndarray
    residual: np.ndarray
    kernel_values: np.ndarray  # K, (n, n)
    basis: np.ndarray  # P, (n, 3 or 4)
    kernel: Kernel

    @classmethod
    def of(
        cls, fixed: np.ndarray, moving: np.ndarray, weights: np.ndarray | None, kernel: Kernel
    ) -> _Problem:
        pairs = PointPairs.checked(fixed, moving, weights)
        affine = affine_matrix(pairs)
        scaled = (pairs.fixed - pairs.fixed_centroid) / pairs.length_mm
        return cls(
            pairs,
            affine,
            pairs.moving - apply_matrix(affine, pairs.fixed),
            kernel_matrix(scaled, scaled, kernel),
            np.column_stack([np.ones(len(scaled)), scaled @ pairs.fixed_axes]),
            kernel,
        )

    @property
    def affine_alone(self) -> Spline:
        """The limit of infinite smoothing."""
        fixed = self.pairs.fixed
        return Spline(self.affine, fixed, np.zeros_like(fixed), self.kernel)

    def spline(self, coefficients: np.ndarray, polynomial: np.ndarray) -> Spline:
        """The spline in the world from c (n, 3) and a (1 + axes, 3) of the scaled problem."""
        pairs, length = self.pairs, self.pairs.length_mm
        linear = (pairs.fixed_axes @ polynomial[1:] / length).T
        matrix = np.zeros((4, 4))
        matrix[:3, :3] = linear
        matrix[:3, 3] = polynomial[0] - linear @ pairs.fixed_centroid
        if self.kernel == "r":
            return Spline(self.affine + matrix, pairs.fixed, coefficients / length, self.kernel)
        # U(r / L) = U(r) / L^2 - r^2 log(L) / L^2, and the last term is affine because the
        # coefficients are orthogonal to every affine function; it is taken over in closed form.
        coefficients = coefficients / length**2
        shift = _squared_distance_part(pairs.fixed, coefficients, np.log(length))
        return Spline(self.affine + matrix - shift, pairs.fixed, coefficients, self.kernel)

    def refuse_coincident(self, smoothing: float) -> None:
        """Without smoothing, coincident points contradict each other: DegeneratePointsError."""
        fixed = self.pairs.fixed
        rounded = np.round(fixed / (1e-9 * self.pairs.length_mm))
        duplicates = len(fixed) - len(np.unique(rounded, axis=0))
        if smoothing == 0 and duplicates:
            raise DegeneratePointsError(
                f"{duplicates} of the {len(fixed)} fixed points coincide with another one; remove "
                "them or use a smoothing above 0."
            )


def _squared_distance_part(centres: np.ndarray, c: np.ndarray, factor: float) -> np.ndarray:
    """(4, 4) of x -> factor * sum_i c_i |x - p_i|^2, which is affine when sum c = sum c p = 0."""
    matrix = np.zeros((4, 4))
    matrix[:3, :3] = -2 * factor * c.T @ centres
    matrix[:3, 3] = factor * (c * (centres**2).sum(axis=1, keepdims=True)).sum(axis=0)
    return matrix
