"""The smooth field that best follows shifts known at scattered points, some of them wrong.

A cubic B-spline u minimises sum_i w_i |u(x_i) - d_i|^2 + b ∫|D²u|² + s ∫|Du|²: the smoothing
thin-plate spline (Duchon 1977) on a lattice, with a little tension. Between points and beyond them
it continues with as little bending as possible, where a local mean would fall back to zero. Points
that the field cannot follow lose weight (Cauchy's function, iteratively reweighted), while it
becomes less stiff (Blake and Zisserman 1987).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import Polynomial
from scipy import sparse
from scipy.sparse.linalg import splu

SPACING = 24.0  # pixels between the nodes
TENSION = 0.1  # s, dimensionless: keeps what is far from all points from running away
# How many times stiffer the field is at first, and then how many pixels between a point and the
# field halve the weight of the point. A group of wrong points cannot bend a stiff field.
STAGES = ((100.0, 4.0), (30.0, 2.5), (10.0, 1.5), (3.0, 1.0), (1.0, 1.0))
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
    bending: float,
) -> SmoothField:
    """The field for shifts (n, 2) at points (n, 2) in pixels, of which one weight (n,) is not 0.

    bending: b in pixels squared; where there are q points per square pixel, waves shorter than
    about 2 pi (b / q)^(1/4) are smoothed away.
    """
    basis = _basis(points, shape)
    robust = weights
    coefficients = np.zeros((basis.shape[1], 2))
    for stiffness, tolerance in STAGES:
        weighted = basis.T @ sparse.diags(robust)
        factors = splu(
            (weighted @ basis + _penalty(shape, stiffness * bending)).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        coefficients = factors.solve(weighted @ shifts)
        missed = shifts - basis @ coefficients
        robust = weights / (1 + np.square(missed / tolerance).sum(axis=1))
    return SmoothField(coefficients, shape)


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


def _penalty(shape: tuple[int, int], bending: float) -> sparse.csr_matrix:
    """The matrix of b ∫|D²u|² + s ∫|Du|² in the coefficients of one component."""
    bends, slopes = _roughness(_counts(shape))
    return (bending * bends + TENSION * slopes).tocsr()


@lru_cache(maxsize=8)  # pictures of one session have few shapes
def _roughness(counts: tuple[int, int]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """The matrices of ∫|D²u|² and ∫|Du|²."""
    down, across = ([_gram(count, order) for order in range(3)] for count in counts)
    bends = (
        sparse.kron(down[2], across[0])
        + 2 * sparse.kron(down[1], across[1])
        + sparse.kron(down[0], across[2])
    ) / SPACING**2
    slopes = sparse.kron(down[1], across[0]) + sparse.kron(down[0], across[1])
    return bends.tocsr(), slopes.tocsr()


def _gram(count: int, order: int) -> sparse.csr_matrix:
    """(count, count) integrals of products of derivatives of B-splines over count - 3 cells."""
    pieces = [piece.deriv(order) if order else piece for piece in PIECES]
    cell = np.array([[(p * q).integ()(1.0) for q in pieces] for p in pieces])
    gram = np.zeros((count, count))
    for start in range(count - 3):
        gram[start : start + 4, start : start + 4] += cell
    return sparse.csr_matrix(gram)
