"""The three networks: shapes, batches, half precision, and refusals."""

from __future__ import annotations

import pytest
import torch

from retreg.errors import OptionError
from retreg.fitting import fit_affine
from retreg.geometry import apply_matrix
from retreg_server.registration.nets.centre_of_mass import centre_of_mass
from retreg_server.registration.nets.keypoint_net import Architecture, KeypointNet, net_from_dict

BACKBONES = ("light", "conv", "truncated-unet")


def small_net(backbone, dimensions, keypoints=16):
    torch.manual_seed(0)
    return KeypointNet(Architecture(backbone, dimensions, keypoints, width=4, levels=4)).eval()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_network_finds_points_for_every_image_of_a_batch_as_for_one(backbone, dimensions):
    net = small_net(backbone, dimensions)
    images = torch.rand(3, 1, *(32,) * dimensions)
    with torch.no_grad():
        together = net(images)
        alone = net(images[1:2])
    assert together.points.shape == (3, 16, dimensions)
    assert together.energy.shape == together.variance.shape == (3, 16)
    assert (together.points[1] - alone.points[0]).abs().max() < 1e-5
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


def test_half_precision_changes_points_little():
    net = small_net("light", 3)
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        exact = net(image).points
        net.mixed_precision = True
        half = net(image).points
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.02


def test_the_same_image_twice_gives_the_identity_to_1e_4_voxel():
    net = small_net("light", 3, keypoints=32)
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        fixed, moving = (32 * net(image).points[0].double().numpy() / 2 for _ in range(2))
    matrix = fit_affine(fixed, moving).moving_from_fixed
    assert abs(apply_matrix(matrix, fixed * 3) - fixed * 3).max() < 1e-4


def test_a_shift_by_whole_strides_moves_the_heat_maps_by_whole_pixels():
    """Away from the borders, where zero padding and instance norm do not reach: a bare layer."""
    net = small_net("light", 2)
    stem = net.maps.stem[0] if hasattr(net.maps.stem, "__getitem__") else net.maps.stem.conv
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:30, 24:36] = torch.rand(10, 12)
    with torch.no_grad():
        before, after = (
            centre_of_mass(stem(x) - stem(torch.zeros_like(x)))
            for x in (image, image.roll((8, 12), (2, 3)))
        )
    step = torch.tensor([2 * 12 / 64, 2 * 8 / 64])
    moved = (after.points - before.points - step)[before.energy > 1e-3]
    assert len(moved) > 0
    assert moved.abs().max() < 1e-6


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
