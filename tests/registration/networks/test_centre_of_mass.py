"""The centre of mass against NumPy, its equivariance, and its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retreg_server.registration.networks.centre_of_mass import centre_of_mass, pixel_centres


def blob(shape, seed=0):
    """Random maps (2, 3, *shape) that are zero but for a block in the middle."""
    maps = torch.zeros(2, 3, *shape)
    middle = tuple(slice(n // 4, n // 2) for n in shape)
    generator = torch.Generator().manual_seed(seed)
    maps[(..., *middle)] = torch.randn(maps[(..., *middle)].shape, generator=generator)
    return maps


@pytest.mark.parametrize("shape", [(12, 16), (8, 12, 16)])
def test_points_energy_and_variance_are_those_of_numpy(shape):
    maps = blob(shape)
    found = centre_of_mass(maps)
    mass = np.maximum(maps.double().numpy(), 0)
    lattice = np.stack(np.meshgrid(*((2 * np.arange(n) + 1) / n - 1 for n in shape), indexing="ij"))
    for b in range(2):
        for k in range(3):
            weights = mass[b, k] / mass[b, k].sum()
            mean = (weights * lattice).reshape(len(shape), -1).sum(axis=1)
            spread = (weights * (lattice.T - mean).T ** 2).reshape(len(shape), -1).sum(axis=1)
            assert np.allclose(found.points[b, k], mean[::-1], atol=1e-6)
            assert np.isclose(found.energy[b, k], mass[b, k].sum(), rtol=1e-6)
            assert np.isclose(found.variance[b, k], spread.mean(), atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 24), (12, 16, 20)])
def test_a_shift_by_whole_pixels_moves_the_points_by_exactly_that(shape):
    maps = blob(shape)
    shifts = tuple(range(1, 1 + len(shape)))
    moved = torch.roll(maps, shifts, dims=tuple(range(2, maps.ndim)))
    step = torch.tensor([2 * s / n for s, n in zip(shifts, shape, strict=True)]).flip(0)
    before, after = centre_of_mass(maps), centre_of_mass(moved)
    assert (after.points - before.points - step).abs().max() < 5e-7
    assert (after.variance - before.variance).abs().max() < 1e-6


def test_a_single_pixel_gives_its_centre_with_edges_at_plus_and_minus_one():
    maps = torch.zeros(1, 2, 4, 8)
    maps[0, 0, 0, 0] = 1
    maps[0, 1, 3, 7] = 5
    points = centre_of_mass(maps).points[0]
    assert torch.allclose(points, torch.tensor([[-7 / 8, -3 / 4], [7 / 8, 3 / 4]]))
    assert pixel_centres(2).tolist() == [-0.5, 0.5]


def test_an_empty_map_gives_the_centre_with_no_energy_and_finite_gradients():
    maps = torch.full((1, 1, 4, 4), -1.0, requires_grad=True)
    found = centre_of_mass(maps)
    assert found.points.abs().max() == 0
    assert found.energy.item() == 0
    found.points.sum().backward()
    assert torch.isfinite(maps.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_summed_in_single_precision(dtype):
    maps = 1000 + torch.rand(1, 1, 64, 64)
    found = centre_of_mass(maps.to(dtype))
    assert found.points.dtype == torch.float32
    assert torch.isfinite(found.energy).all()
    assert (found.points - centre_of_mass(maps.to(dtype).float()).points).abs().max() == 0


def test_weights_have_mean_one_and_favour_strong_or_narrow_maps():
    maps = torch.zeros(1, 2, 16, 16)
    maps[0, 0, 8, 8] = 3.0
    maps[0, 1, 4:12, 4:12] = 0.01
    found = centre_of_mass(maps)
    for weighting in ("none", "power", "variance"):
        weights = found.weights(weighting)
        assert torch.isclose(weights.mean(), torch.tensor(1.0))
        assert (weights[0, 0] > weights[0, 1]) == (weighting != "none")
