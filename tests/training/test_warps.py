"""Random warps: the truth they state, against independent arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from retreg_server.training.warps import (
    LATTICE,
    WarpRanges,
    random_diffeomorphism,
    random_rotation,
    random_warp,
    smooth_noise,
)

RANGES = WarpRanges(180.0, bend=0.04)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_a_landmark_is_seen_exactly_where_the_warp_says(dimensions, seed):
    warp = random_warp(dimensions, RANGES, 0.875, rng(seed))
    anatomy = 0.7 * (2 * torch.rand(200, dimensions, generator=rng(seed + 50)) - 1)
    image = warp.image_of(anatomy)
    assert (warp.anatomy_of(image) - anatomy).abs().max() < 2e-6


@pytest.mark.parametrize("dimensions", [2, 3])
def test_pixels_look_where_scipy_says(dimensions):
    warp = random_warp(dimensions, RANGES, 0.875, rng(1))
    shape = (18, 24, 30)[-dimensions:]
    looked = warp.anatomy_at_pixels(shape)[0].numpy()
    axes = [(2 * np.arange(n) + 1) / n - 1 for n in shape]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)[..., ::-1]
    index = [((x[..., d] + 1) * LATTICE - 1) / 2 for d in range(dimensions)][::-1]
    offset = np.stack(
        [map_coordinates(c, index, order=1, mode="nearest") for c in warp.displacement[0].numpy()],
        axis=-1,
    )
    linear = warp.linear.numpy()
    expected = (x + offset) @ linear[:, :dimensions].T + linear[:, dimensions]
    assert np.abs(looked - expected).max() < 1e-5


@pytest.mark.parametrize("dimensions", [2, 3])
def test_rotations_are_proper_stay_in_their_range_and_fill_it(dimensions):
    generator = rng(2)
    angles = []
    for _ in range(200):
        turn = random_rotation(dimensions, 180.0, generator)
        assert torch.allclose(turn @ turn.T, torch.eye(dimensions), atol=1e-5)
        assert torch.linalg.det(turn) > 0.99
        cosine = turn[0, 0] if dimensions == 2 else (turn.trace() - 1) / 2
        angles.append(math.degrees(math.acos(max(-1, min(1, float(cosine))))))
    assert max(angles) > 170
    assert min(angles) < 30
    limited = random_rotation(dimensions, 5.0, generator)
    assert (limited - torch.eye(dimensions)).abs().max() < 0.1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_bending_never_folds(dimensions):
    for seed in range(8):
        field = random_diffeomorphism(dimensions, 0.05, rng(seed))[0]
        step = 2 / LATTICE
        gradients = [field.diff(dim=axis + 1) / step for axis in range(dimensions)]
        cells = [g[(slice(None), *(slice(0, LATTICE - 1),) * dimensions)] for g in gradients]
        jacobian = torch.stack(cells[::-1], dim=1).movedim((0, 1), (-2, -1)) + torch.eye(dimensions)
        assert torch.linalg.det(jacobian).min() > 0.1


def test_the_same_seed_gives_the_same_warp_and_another_another():
    first, again, other = (random_warp(3, RANGES, 1.0, rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.linear, again.linear)
    assert torch.equal(first.displacement, again.displacement)
    assert not torch.allclose(first.linear, other.linear)


def test_smooth_noise_is_smooth_and_of_unit_order():
    noise = smooth_noise(4, 5, (32, 32, 32), rng(3))
    assert 0.3 < noise.std() < 1.2
    assert noise.diff(dim=4).std() < 0.25 * noise.std()
