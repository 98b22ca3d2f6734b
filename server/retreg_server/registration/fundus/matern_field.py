"""The smooth field that best follows shifts known at scattered points, some of them wrong.

The shifts are samples of a random field with Matérn's correlation, as in kriging: between points
it is continued smoothly, and far from all of them it falls back to zero. On a lattice of cubic
B-splines u minimises sum_i w_i |u(x_i) - d_i|^2 / n^2 + ∫|k^2 u - Δu|^2 / (4 pi k^2 A^2) (Lindgren,
Rue and Lindström 2011, alpha = 2 in the plane). Its amplitude A and the noise n of the shifts are
estimated from the shifts: pictures that fit already, or where vessels are found only roughly, are
bent less. A point counts by its probability of being right rather than anywhere within FARTHEST
(Ma et al. 2014), and that judgement is sharpened step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import Polynomial
from scipy import sparse
from scipy.sparse.linalg import splu

SPACING = 24.0  # pixels between the nodes
RANGE = 500.0  # pixels: two shifts that far apart have a correlation of 0.14
SHARED = 2.5  # times the deviation of a shift: neighbours are tracked by the same pixels
FIRST_NOISE, LEAST_NOISE = 0.5, 0.2  # pixels that a right shift is off along each axis
FIRST_AMPLITUDE, LEAST_AMPLITUDE = 8.0, 0.5  # pixels, along each axis
FARTHEST = 20.0  # pixels that a wrong shift may be long
# How many pixels off a shift may be before it counts as wrong: at first, and in the end.
TOLERANCES = (4.0, 2.5, 1.5, 1.0, 1.0)
# The four pieces of the uniform cubic B-spline as polynomials of the fraction of a cell.
PIECES = tuple(
    Polynomial(np.array(sixths) / 6)
    for sixths in ((1, -3, 3, -1), (4, 0, -6, 3), (1, 3, 3, -3), (0, 0, 0, 1))
)


@dataclass(frozen=True, eq=False)
class SmoothField:
    """A field of shifts (n, 2) in pixels at points (n, 2) of a picture of the shape (h, w).

    coefficients: (rows * columns, 2) of the B-splines.
    """

    coefficients: np.ndarray
    shape: tuple[int, int]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        shifts: np.ndarray = _basis(points, self.shape) @ self.coefficients
        return shifts


def smooth_field(
    points: np.ndarray,
    shifts: np.ndarray,
    weights: np.ndarray,
    shape: tuple[int, int],
    stiffness: float = 1.0,
) -> SmoothField:
    """The field for shifts (n, 2) at points (n, 2) in pixels, of which one weight (n,) is not 0.

    stiffness: how many times more than by its amplitude the field is held back.
    """
    basis = _basis(points, shape)
    prior = _prior(_counts(shape))
    credible, amplitude, noise = weights, FIRST_AMPLITUDE, FIRST_NOISE
    coefficients = np.zeros((basis.shape[1], 2))
    for tolerance in TOLERANCES:
        weighted = basis.T @ sparse.diags(credible / (SHARED * noise) ** 2)
        factors = splu(
            (weighted @ basis + stiffness / amplitude**2 * prior).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        coefficients = factors.solve(weighted @ shifts)
        missed = shifts - basis @ coefficients
        credible = weights * _probability(missed, tolerance)
        amplitude = max(LEAST_AMPLITUDE, _deviation(shifts, credible))
        noise = max(LEAST_NOISE, _deviation(missed, credible))
    return SmoothField(coefficients, shape)


def _probability(missed: np.ndarray, tolerance: float) -> np.ndarray:
    """(n,) that a shift off by missed (n, 2) is right: normal there, uniform if it is wrong."""
    ratio = np.square(missed / tolerance).sum(axis=1)
    wrong: np.ndarray = np.square(tolerance / FARTHEST) * np.exp(np.minimum(ratio, 50))
    return 1 / (1 + wrong)


def _deviation(vectors: np.ndarray, weights: np.ndarray) -> float:
    """Root mean square of the components of vectors (n, 2)."""
    return float(np.sqrt(np.average(np.square(vectors).mean(axis=1), weights=weights)))


def _counts(shape: tuple[int, int]) -> tuple[int, int]:
    """Numbers of B-splines along rows and columns of a picture (h, w)."""
    rows, columns = (int(np.ceil(n / SPACING)) + 3 for n in shape)
    return rows, columns


def _basis(points: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """(n, rows * columns) values of all B-splines at points (n, 2)."""
    rows, columns = _counts(shape)
    (row, down), (column, across) = (
        _along(points[:, axis], count) for axis, count in ((1, rows), (0, columns))
    )
    step = np.arange(4)
    places = (row[:, None, None] + step[:, None]) * columns + column[:, None, None] + step
    values = down[:, :, None] * across[:, None, :]
    starts = np.arange(0, 16 * len(points) + 1, 16)
    size = len(points), rows * columns
    return sparse.csr_matrix((values.ravel(), places.ravel(), starts), shape=size)


def _along(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of the four B-splines at each coordinate (n,), and their values (n, 4)."""
    position = np.clip((x + 0.5) / SPACING, 0, count - 3)
    first = np.minimum(position.astype(int), count - 4)
    return first, np.stack([piece(position - first) for piece in PIECES], axis=1)


@lru_cache(maxsize=8)  # pictures of one session have few shapes
def _prior(counts: tuple[int, int]) -> sparse.csr_matrix:
    """The matrix of ∫|k^2 u - Δu|^2 / (4 pi k^2) in the coefficients of one component."""
    down, across = ([_gram(count, order) for order in range(3)] for count in counts)
    values = sparse.kron(down[0], across[0]) * SPACING**2
    slopes = sparse.kron(down[1], across[0]) + sparse.kron(down[0], across[1])
    bends = (
        sparse.kron(down[2], across[0])
        + 2 * sparse.kron(down[1], across[1])
        + sparse.kron(down[0], across[2])
    ) / SPACING**2
    squared = 8 / RANGE**2  # k^2
    energy = bends + 2 * squared * slopes + squared**2 * values
    return (energy / (4 * np.pi * squared)).tocsr()


def _gram(count: int, order: int) -> sparse.csr_matrix:
    """(count, count) integrals of products of derivatives of B-splines over count - 3 cells."""
    pieces = [piece.deriv(order) if order else piece for piece in PIECES]
    cell = np.array([[(p * q).integ()(1.0) for q in pieces] for p in pieces])
    gram = np.zeros((count, count))
    for start in range(count - 3):
        gram[start : start + 4, start : start + 4] += cell
    return sparse.csr_matrix(gram)
