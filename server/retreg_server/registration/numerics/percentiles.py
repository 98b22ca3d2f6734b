"""Percentiles of many values in one pass: a sample brackets them, the bracket is sorted."""

from __future__ import annotations

import numpy as np

EVERY = 61  # a prime: along the rows of any picture the sample visits all columns
DEVIATIONS = 4.0  # of the rank in the sample, by which the bracket is wider
FEWEST = 20_000  # values that are worth it


def percentile(values: np.ndarray, q: float) -> float:
    """The percentile q (0 to 100) of finite values of any shape, as numpy.percentile finds it."""
    flat = values.ravel()
    if flat.size < FEWEST:
        return float(np.percentile(flat, q))
    sample = np.sort(flat[::EVERY])
    share, last = q / 100, len(sample) - 1
    reach = DEVIATIONS * np.sqrt(share * (1 - share) * len(sample)) + 2
    ends = share * last - reach, share * last + reach
    low, high = (sample[int(np.clip(end, 0, last))] for end in ends)
    kept = np.ones(flat.shape, bool)
    if ends[0] > 0:
        kept &= flat >= low
    if ends[1] < last:
        kept &= flat <= high
    below = 0 if ends[0] <= 0 else int(np.count_nonzero(flat < low))
    return _ranked(flat, flat[kept], share * (flat.size - 1) - below, q)


def _ranked(flat: np.ndarray, kept: np.ndarray, rank: float, q: float) -> float:
    """Between the two of the kept values around rank; of all of them when it is not among these."""
    first = int(np.floor(rank))
    if not 0 <= first <= len(kept) - 1 or (rank > first and first + 1 >= len(kept)):
        return float(np.percentile(flat, q))
    second = min(first + 1, len(kept) - 1)
    one, other = np.partition(kept, (first, second))[[first, second]].astype(np.float64)
    return float(one + (rank - first) * (other - one))
