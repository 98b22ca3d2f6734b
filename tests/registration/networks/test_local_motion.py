"""Local motion from gradients, against NumPy's solver and known shifts."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from retreg_server.registration.networks.local_motion import STIFFNESS, local_motion


def smooth_volumes(channels=4, size=20, seed=0):
    noise = np.random.default_rng(seed).normal(size=(channels, size, size, size))
    return np.stack([ndimage.gaussian_filter(each, 3.0, mode="wrap") for each in noise])


def as_batch(volumes):
    return torch.from_numpy(volumes)[None]


def test_a_shift_by_part_of_a_voxel_is_found_in_every_window():
    fixed = smooth_volumes()
    moving = np.stack([ndimage.shift(each, (0.0, -0.2, 0.4), mode="wrap") for each in fixed])
    found = local_motion(as_batch(fixed), as_batch(moving), (7, 9))
    middle = found[0, :, 6:-6, 6:-6, 6:-6].reshape(2, 3, -1).mean(dim=2)
    np.testing.assert_allclose(middle, [[0.4, -0.2, 0.0]] * 2, atol=0.04)


def test_the_answer_solves_the_normal_equations_of_the_window():
    fixed, moving = smooth_volumes(seed=1), smooth_volumes(seed=2)
    found = local_motion(as_batch(fixed), as_batch(moving), (5,))[0, :, 10, 9, 8].numpy()
    slopes = np.stack(np.gradient((fixed + moving) / 2, axis=(3, 2, 1)))
    stiff = STIFFNESS * np.square(slopes).sum(axis=1).mean()
    cube = (..., slice(8, 13), slice(7, 12), slice(6, 11))
    g = slopes[cube].reshape(3, -1)
    matrix = g @ g.T / 125 + stiff * np.eye(3)
    side = g @ (fixed - moving)[cube].reshape(-1) / 125
    np.testing.assert_allclose(found, np.linalg.solve(matrix, side), rtol=1e-6)


def test_nothing_moves_where_nothing_is_seen():
    still = torch.ones(1, 2, 8, 8, 8)
    assert local_motion(still, still, (3,)).abs().max() == 0
