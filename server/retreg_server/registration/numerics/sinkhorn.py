"""Soft assignments between two sets by Sinkhorn's iterations in the logarithm (Cuturi 2013), with a
bin on each side for what has no partner (Sarlin et al. 2020, SuperGlue)."""

from __future__ import annotations

import numpy as np

CLOSE = 1e-6
WIDEST = 300.0  # range of logits whose exponentials and their products are ordinary numbers


def assignment(
    scores: np.ndarray, dustbin: float, temperature: float = 1.0, rounds: int = 100
) -> np.ndarray:
    """Shares (n + 1, m + 1) of the pairs of two sets, the last row and column being the bins.

    scores: (n, m), higher for better pairs. dustbin: the score of having no partner. Of the first n
    rows and the first m columns each sums to 1 once the iterations have converged; they end then,
    or after rounds. The lower the temperature, the nearer all shares are to 0 and 1.
    """
    n, m = scores.shape
    if not scores.size:
        alone = np.zeros((n + 1, m + 1))
        alone[:n, m] = alone[n, :m] = 1
        return alone
    logits = np.full((n + 1, m + 1), dustbin, dtype=np.float64)
    logits[:n, :m] = scores
    logits /= temperature
    rows, columns = np.ones(n + 1), np.ones(m + 1)
    rows[n], columns[m] = m, n
    solve = _by_products if np.ptp(logits) < WIDEST else _by_logarithms
    return solve(logits, rows, columns, rounds)


def _by_products(
    logits: np.ndarray, rows: np.ndarray, columns: np.ndarray, rounds: int
) -> np.ndarray:
    """Much quicker, for logits whose exponentials double precision holds."""
    kernel = np.exp(logits - logits.max())
    down, right = np.ones(len(rows)), np.ones(len(columns))
    for _ in range(rounds):
        down = rows / (kernel @ right)
        before, right = right, columns / (down @ kernel)
        if (np.abs(right - before) < CLOSE * right).all():
            break
    shares: np.ndarray = down[:, None] * kernel * right
    return shares


def _by_logarithms(
    logits: np.ndarray, rows: np.ndarray, columns: np.ndarray, rounds: int
) -> np.ndarray:
    down, right = np.zeros(len(rows)), np.zeros(len(columns))
    for _ in range(rounds):
        down = np.log(rows) - _log_sum(logits + right, axis=1)
        before, right = right, np.log(columns) - _log_sum(logits + down[:, None], axis=0)
        if np.abs(right - before).max() < CLOSE:
            break
    shares: np.ndarray = np.exp(logits + down[:, None] + right)
    return shares


def _log_sum(logits: np.ndarray, axis: int) -> np.ndarray:
    """The logarithm of the sum of the exponentials along the axis."""
    highest = logits.max(axis=axis, keepdims=True)
    summed: np.ndarray = np.log(np.exp(logits - highest).sum(axis=axis)) + highest.squeeze(axis)
    return summed
