"""Soft assignments: what sums to one, and what they become at low temperature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from retreg_server.registration.numerics.sinkhorn import assignment


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (12, 3), (1, 1), (30, 25)])
def test_rows_and_columns_sum_to_one_and_the_bins_to_the_rest(shape):
    n, m = shape
    scores = np.random.default_rng(n).normal(size=shape)
    shares = assignment(scores, 0.3, rounds=500)
    assert shares.shape == (n + 1, m + 1)
    assert shares[:n].sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert shares[:, :m].sum(axis=0) == pytest.approx(1, abs=1e-4)
    assert shares[n].sum() == pytest.approx(m, abs=1e-3)
    assert shares[:, m].sum() == pytest.approx(n, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(6, 6), (5, 8), (9, 4)])
def test_at_low_temperature_it_is_the_assignment_of_least_cost(seed, shape):
    scores = np.random.default_rng(seed).normal(size=shape)
    shares = assignment(scores, -30.0, temperature=0.02, rounds=5000)
    rows, columns = linear_sum_assignment(scores, maximize=True)
    expected = np.zeros(shape)
    expected[rows, columns] = 1
    assert np.array_equal(shares[:-1, :-1] > 0.5, expected > 0)


def test_what_has_no_partner_goes_to_the_bin():
    scores = np.array([[9.0, 0.0, 0.0], [0.0, 0.0, 9.0], [0.0, 1.0, 0.0]])
    shares = assignment(scores, 5.0, temperature=0.5)
    assert shares[0, 0] > 0.9
    assert shares[1, 2] > 0.9
    assert shares[2, 3] > 0.9
    assert shares[3, 1] > 0.9


def test_scores_that_would_overflow_are_no_difficulty():
    shares = assignment(np.array([[2000.0, -2000.0], [-2000.0, 2000.0]]), 0.0)
    assert np.isfinite(shares).all()
    assert shares[:2, :2] == pytest.approx(np.eye(2), abs=0.01)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_an_empty_set_leaves_all_of_the_other_in_the_bin(shape):
    shares = assignment(np.zeros(shape), 0.0)
    assert shares[: shape[0]].sum() == pytest.approx(shape[0])
    assert shares[:, : shape[1]].sum() == pytest.approx(shape[1])
