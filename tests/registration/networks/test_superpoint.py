"""The network for points: its two forms say the same, and points come out where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from retreg_server.registration.networks.point_extraction import (
    descriptors_at,
    point_map,
    strongest_points,
)
from retreg_server.registration.networks.superpoint_arrays import SuperPointArrays
from retreg_server.registration.networks.superpoint_net import PointArchitecture, sampled


@pytest.fixture(scope="module")
def net():
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    made = PointArchitecture(width=4, descriptor=8).build()
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_()
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("shape", [(32, 32), (96, 64), (64, 160)])
def test_numpy_and_torch_say_the_same(net, shape):
    picture = np.random.default_rng(1).random(shape, dtype=np.float32)
    cells, described = net(torch.from_numpy(picture)[None, None])
    arrays = SuperPointArrays({name: value.numpy() for name, value in net.state_dict().items()})
    assert arrays.cells(picture) == pytest.approx(cells[0].numpy(), rel=1e-4, abs=1e-4)
    assert arrays.descriptors(picture) == pytest.approx(described[0].numpy(), rel=1e-4, abs=1e-4)
    assert arrays.sharpness == pytest.approx(float(net.sharpness.exp()))


def test_descriptors_between_cells_are_those_that_training_saw(net):
    picture = torch.rand(1, 1, 64, 96)
    described = net(picture)[1]
    points = np.array([[3.5, 3.5], [40.2, 17.9], [0.0, 0.0], [95.0, 63.0], [88.1, 31.0]])
    normalised = torch.from_numpy((2 * points + 1) / (96, 64) - 1).float()
    expected = sampled(described, normalised).numpy()
    assert descriptors_at(described[0].numpy(), points) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("place", [(0, 0), (13, 9), (31, 23), (16, 8)])
def test_the_logit_of_a_pixel_is_a_point_there(place):
    x, y = place
    cells = np.zeros((65, 3, 4), np.float32)
    cells[64] = 12
    cells[8 * (y % 8) + x % 8, y // 8, x // 8] = 20
    likely = point_map(cells)
    points, strengths = strongest_points(likely, np.ones((24, 32), bool), 9, 0.1)
    assert points == pytest.approx(np.array([[x, y]]), abs=0.05)
    assert strengths[0] > 0.9


def test_of_close_points_the_strongest_stays_and_what_is_not_valid_goes():
    likely = np.zeros((40, 40), np.float32)
    for x, y, strength in ((10, 10, 0.9), (12, 10, 0.8), (30, 10, 0.7), (20, 30, 0.6)):
        likely[y, x] = strength
    valid = np.ones((40, 40), bool)
    valid[:, 25:] = False
    points, strengths = strongest_points(likely, valid, 9, 0.1)
    assert strengths == pytest.approx([0.9, 0.6])
    assert points[0] == pytest.approx([10.9, 10], abs=0.1)  # drawn towards its neighbour
    assert len(strongest_points(likely, valid, 1, 0.1)[0]) == 1
