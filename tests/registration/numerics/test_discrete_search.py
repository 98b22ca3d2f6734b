"""The discrete search finds what is too far away for slopes."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from retreg_server.registration.numerics.discrete_search import convex_start
from retreg_server.registration.numerics.fields import warped
from retreg_server.registration.volume.field_gauss_newton import (
    Stiffness,
    normal_equations,
    smooth_step,
)


def textured(shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    """Channels (6, k, j, i) whose details are a voxel or two wide."""
    random = np.random.default_rng(seed)
    channels = [gaussian_filter(random.normal(size=shape), 0.7) for _ in range(6)]
    return torch.from_numpy(np.stack(channels)).float() * 2


def test_a_large_displacement_that_slopes_miss_is_found():
    shape = (20, 22, 24)
    moving = textured(shape, 1)
    _, j, i = np.indices(shape)
    wanted = np.stack([4 + np.sin(j / 6), 3 + 0 * i, np.cos(i / 7) - 4])
    truth = torch.from_numpy(wanted).float()[None]
    fixed = warped(moving[None], truth)[0]
    inner = (slice(None), slice(None), *[slice(6, -6)] * 3)

    def error(shift: torch.Tensor) -> float:
        return float((shift - truth)[inner].square().sum(dim=1).sqrt().mean())

    weight = torch.ones(shape)
    slopes = torch.zeros(1, 3, *shape)
    for _ in range(10):
        other = warped(moving[None], slopes)[0]
        normal = normal_equations(fixed, other, weight, 1)
        slopes = slopes + smooth_step(normal, slopes[0], Stiffness(0.1, 0.0), 50)[None].clamp(-1, 1)
    assert error(slopes) > 1.5
    assert error(convex_start(fixed, moving, weight, 5)) < 0.7


def test_in_the_plane_the_same_search_finds_a_shift_by_whole_pixels():
    moving = textured((1, 30, 34), 6)[:, 0]
    found = convex_start(moving.roll((-2, 3), (1, 2)), moving, torch.ones(30, 34), 4)
    inner = found[0, :, 8:-8, 8:-8]
    assert inner[0].unique().tolist() == [-3.0]
    assert inner[1].unique().tolist() == [2.0]


def test_equal_volumes_stay_where_they_are():
    volume = textured((10, 11, 12), 2)
    assert not convex_start(volume, volume, torch.ones(10, 11, 12)).any()


def test_where_nothing_counts_the_neighbours_decide():
    moving = textured((14, 14, 14), 3)
    truth = torch.zeros(1, 3, 14, 14, 14)
    truth[:, 0] = 2.0
    fixed = warped(moving[None], truth)[0]
    weight = torch.ones(14, 14, 14)
    weight[5:9, 5:9, 5:9] = 0
    fixed[:, 5:9, 5:9, 5:9] = 0
    found = convex_start(fixed, moving, weight)
    assert float(found[0, 0, 7, 7, 7]) > 1.0


def test_far_from_all_that_counts_nothing_moves():
    moving = textured((18, 18, 18), 4)
    weight = torch.zeros(18, 18, 18)
    weight[:4, :4, :4] = 1
    found = convex_start(moving.roll(1, 3), moving, weight)
    assert not found[..., 12:, 12:, 12:].any()
