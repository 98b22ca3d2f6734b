"""Points spread over a set, against a plain search in NumPy."""

from __future__ import annotations

import numpy as np
import torch

from retreg_server.registration.numerics.farthest_points import farthest_points, spread_out


def test_each_point_is_the_farthest_from_those_before_it():
    points = np.random.default_rng(4).normal(size=(200, 3))
    chosen = farthest_points(torch.from_numpy(points), 12, first=7)
    assert chosen[0] == 7
    for n in range(1, 12):
        gaps = np.linalg.norm(points[:, None] - points[chosen[:n]], axis=2).min(axis=1)
        assert gaps[chosen[n]] == gaps.max()


def test_no_more_points_are_chosen_than_there_are():
    points = torch.arange(5.0)[:, None]
    assert sorted(farthest_points(points, 9, first=2)) == [0, 1, 2, 3, 4]


def test_the_middle_one_comes_first_where_nobody_says_otherwise():
    points = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0], [2.1, 2.0]])
    assert torch.equal(spread_out(points, 1), points[4:])
