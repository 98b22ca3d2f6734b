"""Losses: zero where they should be, with gradients that numerical differences confirm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from retreg.fitting import fit_tps
from retreg_server.registration.networks.centre_of_mass import HeatMapPoints
from retreg_server.training.alignment import (
    SMOOTHING_RANGE,
    overlap_loss,
    random_smoothing,
    similarity_loss,
    spline_at,
    spline_grid,
)
from retreg_server.training.losses import (
    agreement_loss,
    keypoint_loss,
    weighted_affine,
    weighted_affine_error,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def found(points, variance=0.01):
    shape = points.shape[:2]
    return HeatMapPoints(points, torch.ones(shape), torch.full(shape, variance, dtype=points.dtype))


def test_the_keypoint_loss_is_least_at_the_truth_and_ignores_hidden_points():
    truth = torch.rand(2, 5, 3, generator=rng())
    visible = torch.ones(2, 5)
    visible[:, 4] = 0
    best = keypoint_loss(found(truth), truth, visible)
    off = truth.clone()
    off[:, 4] += 1
    assert torch.isclose(keypoint_loss(found(off), truth, visible), best)
    off[:, 0] += 0.1
    assert keypoint_loss(found(off), truth, visible) > best


def test_the_certainty_term_asks_for_the_variance_that_the_errors_have():
    truth = torch.zeros(1, 40, 2)
    points = 0.1 * torch.randn(1, 40, 2, generator=rng(1))
    losses = {
        v: float(keypoint_loss(found(points, v), truth, torch.ones(1, 40)))
        for v in (0.0005, 0.002, 0.01, 0.05, 0.2)
    }
    assert min(losses, key=losses.get) == 0.01
    hidden = {
        v: float(keypoint_loss(found(points, v), truth, torch.zeros(1, 40)))
        for v in (0.0005, 0.01, 0.1)
    }
    assert min(hidden, key=hidden.get) == 0.1


def test_gradients_of_the_keypoint_losses_are_those_of_finite_differences():
    points = torch.rand(1, 4, 3, dtype=torch.float64, generator=rng(2)).requires_grad_()
    variance = (0.01 + torch.rand(1, 4, dtype=torch.float64, generator=rng(3))).requires_grad_()
    truth = torch.rand(1, 4, 3, dtype=torch.float64, generator=rng(4))
    visible = torch.tensor([[1.0, 1.0, 0.0, 1.0]], dtype=torch.float64)

    def loss(points, variance):
        return keypoint_loss(HeatMapPoints(points, variance, variance), truth, visible)

    assert torch.autograd.gradcheck(loss, (points, variance))
    assert torch.autograd.gradcheck(
        lambda p: agreement_loss(p[0], truth[0], visible[0]), (points,)
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_affine_of_two_images_is_recovered_from_their_keypoints(dimensions):
    fixed = torch.randn(20, dimensions, generator=rng(5))
    linear = torch.eye(dimensions) + 0.2 * torch.randn(dimensions, dimensions, generator=rng(6))
    moving = fixed @ linear + 0.3
    pair = found(torch.stack([fixed, moving]))
    matrix = weighted_affine(pair, 0, 1)
    assert torch.allclose(matrix, torch.cat([linear, torch.full((1, dimensions), 0.3)]), atol=1e-5)
    assert weighted_affine_error(pair, torch.stack([fixed, moving])) < 1e-5
    assert weighted_affine_error(pair, torch.stack([fixed, moving + 0.1])) > 0.09


@pytest.mark.parametrize("smoothing", [0.0, 0.01, 1.0, math.inf])
def test_the_spline_for_training_is_the_spline_of_the_product(smoothing):
    generator = rng(7)
    fixed = torch.rand(1, 30, 3, dtype=torch.float64, generator=generator)
    moving = fixed + 0.1 * torch.randn(1, 30, 3, dtype=torch.float64, generator=generator)
    weights = 0.5 + torch.rand(1, 30, dtype=torch.float64, generator=generator)
    places = torch.rand(1, 50, 3, dtype=torch.float64, generator=generator)
    ours = spline_at(places, fixed, moving, smoothing, weights)[0].numpy()
    product = fit_tps(fixed[0].numpy(), moving[0].numpy(), weights[0].numpy(), smoothing)
    assert np.abs(ours - product(places[0].numpy())).max() < 1e-8


@pytest.mark.parametrize("dimensions", [2, 3])
def test_gradients_flow_through_the_spline_to_the_keypoints(dimensions):
    generator = rng(8)
    fixed, moving = (
        torch.rand(1, 8, dimensions, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(2)
    )
    places = torch.rand(1, 5, dimensions, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(
        lambda f, m: spline_at(places, f, m, 0.1), (fixed, moving), atol=1e-6
    )


def test_identical_keypoints_give_the_identity_grid_and_no_loss():
    points = torch.rand(1, 20, 3, generator=rng(9)) - 0.5
    image = torch.rand(1, 2, 16, 16, 16, generator=rng(10))
    grid = spline_grid((16, 16, 16), points, points, 0.1)
    assert similarity_loss(image, image, grid) < 1e-8
    labels = (image > 0.5).float()
    assert overlap_loss(labels, labels, grid) < 1e-4
    shifted = spline_grid((16, 16, 16), points, points + 0.25, 0.1)
    assert similarity_loss(image, image, shifted) > 0.01
    assert overlap_loss(labels, labels, shifted) > 0.1


def test_smoothing_is_drawn_evenly_on_a_logarithmic_scale():
    generator = rng(11)
    drawn = np.log([random_smoothing(generator) for _ in range(400)])
    low, high = np.log(SMOOTHING_RANGE)
    assert drawn.min() >= low
    assert drawn.max() <= high
    assert np.allclose(np.quantile(drawn, [0.25, 0.5, 0.75]),
                       low + (high - low) * np.array([0.25, 0.5, 0.75]), atol=0.8)
