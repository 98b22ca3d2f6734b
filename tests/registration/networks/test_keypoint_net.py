"""The three networks: shapes, batches, half precision, and refusals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from retreg.errors import OptionError
from retreg.fitting import fit_affine
from retreg.geometry import apply_matrix
from retreg_server.registration.networks.centre_of_mass import centre_of_mass
from retreg_server.registration.networks.keypoint_net import (
    Architecture,
    KeypointNet,
    net_from_dict,
)

BACKBONES = ("light", "conv", "truncated-unet")


def small_net(backbone, dimensions, keypoints=16):
    torch.manual_seed(0)
    return KeypointNet(Architecture(backbone, dimensions, keypoints, width=4, levels=4)).eval()


@pytest.mark.parametrize("keypoints", [16, 64, 512])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_network_finds_points_for_every_image_of_a_batch_as_for_one(
    backbone, dimensions, keypoints
):
    net = small_net(backbone, dimensions, keypoints)
    images = torch.rand(3, 1, *(32,) * dimensions)
    with torch.no_grad():
        together = net(images)
        alone = net(images[1:2])
    assert together.points.shape == (3, keypoints, dimensions)
    assert together.energy.shape == together.variance.shape == (3, keypoints)
    # Sums of another order round otherwise, and norms over four pixels make that larger.
    assert (together.points[1] - alone.points[0]).abs().max() < 5e-5
    assert (together.points[0] - together.points[1]).abs().max() > 1e-6


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_heat_maps_have_the_stride_that_the_architecture_says(backbone, dimensions):
    net = small_net(backbone, dimensions)
    maps = net.maps(torch.rand(1, 1, *(32,) * dimensions))
    assert maps.shape == (1, 16, *(32 // net.architecture.stride,) * dimensions)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_receives_a_gradient(backbone):
    net = small_net(backbone, 2).train()
    found = net(torch.rand(2, 1, 64, 64))
    (found.points.square().sum() + found.variance.sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision_changes_points_little(backbone, dimensions):
    net = small_net(backbone, dimensions)
    image = torch.rand(2, 1, *(32,) * dimensions)
    with torch.no_grad():
        exact = net(image)
        net.mixed_precision = True
        assert net.maps(image).dtype == torch.float32  # outside of forward
        half = net(image)
    assert half.points.dtype == half.variance.dtype == torch.float32
    off = (half.points - exact.points).abs()
    assert 0 < off.median() < 0.01
    assert off.max() < 0.1


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_same_image_twice_gives_the_identity_to_1e_4_voxel(backbone, dimensions):
    net = small_net(backbone, dimensions, keypoints=32)
    image = torch.rand(1, 1, *(32,) * dimensions)
    with torch.no_grad():
        fixed, moving = (32 * net(image).points[0].double().numpy() / 2 for _ in range(2))
    fixed, moving = (np.pad(each, ((0, 0), (0, 3 - dimensions))) for each in (fixed, moving))
    matrix = fit_affine(fixed, moving).moving_from_fixed
    corners = 16.0 * np.array(list(product((-1, 1), repeat=3)))
    corners[:, dimensions:] = 0
    assert abs(apply_matrix(matrix, corners) - corners).max() < 1e-4


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_shift_by_whole_strides_moves_the_points_by_exactly_that(backbone, dimensions):
    """Without borders: images wrap around, and the points are those of one region of the maps."""
    net = small_net(backbone, dimensions)
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            layer.padding_mode = "circular"
    side, stride = (128, 32)[dimensions - 2], net.architecture.stride
    steps = tuple(net.architecture.multiple * n for n in (1, 0, 1)[-dimensions:])
    axes = tuple(range(2, 2 + dimensions))
    image = torch.rand(1, 1, *(side,) * dimensions)
    with torch.no_grad():
        here, there = net.maps(image), net.maps(image.roll(steps, axes))
    pixels = tuple(step // stride for step in steps)
    region = torch.zeros_like(here)
    quarter = slice(0, max(1, side // stride // 2))
    region[(..., *(quarter,) * dimensions)] = 1
    before, after = (
        centre_of_mass(maps * mask)
        for maps, mask in ((here, region), (there, region.roll(pixels, axes)))
    )
    expected = torch.tensor([2.0 * step / side for step in reversed(steps)])
    assert (before.energy > 1e-3).any()
    assert (after.points - before.points - expected)[before.energy > 1e-3].abs().max() < 2e-5


def test_an_architecture_survives_its_dictionary():
    net = small_net("truncated-unet", 2)
    again = net_from_dict(net.architecture.as_dict())
    assert again.architecture == net.architecture
    again.load_state_dict(net.state_dict())


@pytest.mark.parametrize(
    "values",
    [
        {"backbone": "resnet"},
        {"dimensions": 4},
        {"keypoints": 15},
        {"keypoints": 513},
        {"width": 0},
        {"depth": 3},
    ],
)
def test_impossible_architectures_are_refused(values):
    good = Architecture("light", 3, 64).as_dict()
    with pytest.raises(OptionError):
        net_from_dict(good | values)
