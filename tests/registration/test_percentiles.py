"""Percentiles of many values, as numpy finds them."""

from __future__ import annotations

import numpy as np
import pytest

from retreg_server.registration.numerics.percentiles import FEWEST, percentile

RNG = np.random.default_rng(3)
MANY = (3 * FEWEST // 200, 200)
VALUES = {
    "even": RNG.random(MANY).astype(np.float32),
    "long-tailed": RNG.standard_cauchy(MANY),
    "mostly zero": np.where(RNG.random(MANY) < 0.9, 0, RNG.random(MANY)).astype(np.float32),
    "two values": RNG.integers(0, 2, MANY).astype(np.float32),
    "one value": np.ones(MANY, np.float32),
    "sorted": np.sort(RNG.random(MANY), axis=None),
    "the ends unlike the sample": np.r_[np.full(61, 9.0), RNG.random(4 * FEWEST)],
    "few": RNG.random(50),
}


@pytest.mark.parametrize("q", [0, 0.1, 50, 60, 99, 99.9, 100])
@pytest.mark.parametrize("name", VALUES)
def test_percentiles_are_those_of_numpy(name, q):
    values = VALUES[name]
    assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)), rel=1e-6)


def test_a_sample_that_misleads_is_found_out():
    values = RNG.random(4 * FEWEST)
    values[::61] = 2.0
    assert percentile(values, 50) == pytest.approx(float(np.percentile(values, 50)))
