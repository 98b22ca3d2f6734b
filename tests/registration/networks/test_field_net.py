"""Displacement fields, the correlation layer, and the networks made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from retreg.errors import OptionError
from retreg_server.registration.networks.cost_volume import correlations, displacement_bases
from retreg_server.registration.networks.field_net import FieldArchitecture, field_net_from_dict
from retreg_server.registration.numerics.fields import (
    composed,
    integrated,
    interpolated,
    jacobian_determinants,
    warped,
)

SMALL = {
    "smoothproper-2d": FieldArchitecture("smoothproper", 2, width=4, depth=3),
    "without-layer": FieldArchitecture("smoothproper", 2, width=4, depth=3, steps=0),
    "smoothproper-3d": FieldArchitecture(
        "smoothproper", 3, width=4, depth=3, radii=(1, 1), descriptors=True
    ),
    "voxelmorph-3d": FieldArchitecture("voxelmorph", 3, width=4, depth=3),
    "voxelmorph-mind": FieldArchitecture("voxelmorph", 3, width=4, depth=3, descriptors=True),
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(channels, shape, size, seed=0):
    coarse = torch.randn(1, channels, *(4,) * len(shape), generator=rng(seed))
    return size * interpolated(coarse, shape)


@pytest.mark.parametrize("shape", [(12, 17), (7, 9, 8)])
def test_warping_is_scipys_interpolation_at_the_displaced_pixels(shape):
    image = torch.randn(1, 1, *shape, generator=rng(1))
    field = smooth(len(shape), shape, 1.5)
    places = np.indices(shape, dtype=float) + field[0].flip(0).numpy()
    expected = ndimage.map_coordinates(image[0, 0].numpy(), places, order=1, mode="nearest")
    np.testing.assert_allclose(warped(image, field)[0, 0], expected, atol=1e-4)


def test_composing_goes_along_one_field_and_then_along_the_other():
    first = torch.zeros(1, 2, 9, 9)
    first[:, 0] = 2.0
    second = torch.zeros(1, 2, 9, 9)
    second[:, 1, :, 5:] = 3.0
    there = composed(first, second)[0, :, 4, 4]
    torch.testing.assert_close(there, torch.tensor([2.0, 3.0]))


def test_a_velocity_and_its_opposite_lead_there_and_back():
    velocity = smooth(2, (32, 32), 2.0)
    back_home = composed(integrated(velocity, 7), integrated(-velocity, 7))
    assert back_home[..., 6:-6, 6:-6].norm(dim=1).max() < 0.2
    assert integrated(velocity, 7).norm(dim=1).max() > 2


def test_determinants_of_a_linear_map_and_of_a_fold():
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    field = torch.stack([0.2 * x + 0.1 * y, -0.3 * x])[None]
    determinants = jacobian_determinants(field)
    torch.testing.assert_close(determinants, torch.full((1, 4, 5), 1.2 + 0.03))
    assert (jacobian_determinants(torch.stack([-1.5 * x, 0 * y])[None]) < 0).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_correlation_is_largest_at_the_displacement_of_the_features(dimensions):
    shape = (10, 11, 9)[:dimensions]
    moving = torch.randn(1, 6, *shape, generator=rng(3))
    step = torch.tensor([2, -1, 1][:dimensions])
    fixed = moving.roll([-int(s) for s in step.flip(0)], list(range(2, 2 + dimensions)))
    found = correlations(fixed, moving, 2)
    bases = displacement_bases(dimensions, 2)
    inner = (0, slice(None), *(slice(3, -3),) * dimensions)
    best = bases[found[inner].argmax(dim=0)]
    torch.testing.assert_close(best, step.float().expand_as(best))
    torch.testing.assert_close(found.amax(dim=1)[(0, *inner[2:])].min(), torch.tensor(1.0))


@pytest.mark.parametrize("name", SMALL)
def test_networks_answer_with_fields_at_half_the_size_and_learn(name):
    architecture = SMALL[name]
    torch.manual_seed(0)
    net = architecture.build()
    shape = (32, 40, 32)[: architecture.dimensions]
    images = torch.rand(2, 2, 1, *shape, generator=rng(4))
    fields = net(*images)
    assert fields[-1].shape == (2, architecture.dimensions, *(n // 2 for n in shape))
    fields[-1].square().mean().backward()
    slopes = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert sum(float(slope.abs().sum()) for slope in slopes) > 0


def test_an_untrained_voxelmorph_starts_near_the_identity():
    torch.manual_seed(0)
    net = SMALL["voxelmorph-3d"].build()
    with torch.no_grad():
        (field,) = net(*torch.rand(2, 1, 1, 32, 32, 32, generator=rng(5)))
    assert field.abs().max() < 0.5


def test_what_a_fresh_voxelmorph_sees_reaches_its_last_layer():
    torch.manual_seed(0)
    net = FieldArchitecture("voxelmorph", 3, width=8, depth=4).build()
    layers = dict(net.backbone.named_modules())
    (last,) = (layer for name, layer in layers.items() if name.endswith("final_conv_out"))
    seen = []
    last.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(*torch.rand(2, 1, 1, 32, 32, 32, generator=rng(5)))
    assert seen[0].std(dim=(2, 3, 4)).mean() > 0.08  # 0.02 with PyTorch's usual weights


def test_an_architecture_survives_json_and_bad_ones_are_refused():
    stored = SMALL["smoothproper-3d"].as_dict() | {"radii": [1, 1]}
    assert field_net_from_dict(stored).architecture == SMALL["smoothproper-3d"]
    with pytest.raises(OptionError, match="not known"):
        FieldArchitecture("smoothproper", 2, descriptors=True)
    with pytest.raises(OptionError, match="radii"):
        FieldArchitecture("smoothproper", 2, radii=(0, 1))
    with pytest.raises(OptionError, match="unknown or missing"):
        field_net_from_dict({"network": "voxelmorph"})
