"""The network that matches points: NumPy and torch say the same, and what order, place and a
missing partner mean to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from retreg_server.registration.networks.superglue_arrays import SuperGlueArrays
from retreg_server.registration.networks.superglue_net import (
    GlueArchitecture,
    Points,
    log_assignment,
)
from retreg_server.registration.numerics.sinkhorn import assignment

ARCHITECTURE = GlueArchitecture(width=16, heads=2, layers=2, sharpness=10.0)


def points(count, seed, width=16):
    generator = torch.Generator().manual_seed(seed)
    descriptors = torch.randn(count, width, generator=generator)
    told = 2 * torch.rand(count, 3, generator=generator) - 1
    return Points(functional.normalize(descriptors, dim=1), told)


@pytest.fixture(scope="module")
def net():
    """A network that is far from fresh."""
    torch.manual_seed(0)
    made = ARCHITECTURE.build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return made.requires_grad_(False)


def arrays(net):
    return SuperGlueArrays({name: value.numpy() for name, value in net.state_dict().items()}, 2)


@pytest.mark.parametrize(("n", "m"), [(5, 9), (130, 70), (1, 1), (64, 65)])
def test_numpy_and_torch_say_the_same(net, n, m):
    first, second = points(n, 1), points(m, 2)
    scores, no_partner = net(first, second)
    told = [tuple(each.numpy() for each in found) for found in (first, second)]
    found = arrays(net)
    assert found.scores(*told) == pytest.approx(scores.numpy(), rel=1e-3, abs=1e-3)
    assert found.no_partner == pytest.approx(float(no_partner))


def test_the_order_of_points_changes_nothing_but_the_order_of_scores(net):
    first, second = points(20, 3), points(30, 4)
    orders = torch.randperm(20), torch.randperm(30)
    shuffled = [
        Points(each.descriptors[order], each.told[order])
        for each, order in zip((first, second), orders, strict=True)
    ]
    scores = net(first, second)[0]
    assert torch.allclose(net(*shuffled)[0], scores[orders[0]][:, orders[1]], atol=1e-4)


def test_exchanged_pictures_give_the_same_scores_exchanged(net):
    first, second = points(12, 5), points(17, 6)
    assert torch.allclose(net(first, second)[0], net(second, first)[0].T, atol=1e-4)


def test_a_fresh_network_gives_the_cosines_of_the_descriptors():
    first, second = points(7, 7), points(9, 8)
    scores, no_partner = ARCHITECTURE.build()(first, second)
    assert torch.allclose(scores, 10 * first.descriptors @ second.descriptors.T, atol=1e-4)
    assert float(no_partner.detach()) == pytest.approx(5)


def test_where_points_lie_to_each_other_counts(net):
    first, second = points(20, 9), points(20, 10)
    apart = Points(first.descriptors, first.told.flip(0))
    assert (net(first, second)[0] - net(apart, second)[0]).abs().max() > 0.1


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 9), (12, 3)])
def test_logarithms_of_shares_are_those_of_the_assignment(n, m):
    scores = 5 * torch.randn(n, m, generator=torch.Generator().manual_seed(n))
    found = log_assignment(scores, torch.tensor(1.5), 50).exp().numpy()
    assert found == pytest.approx(assignment(scores.numpy(), 1.5, rounds=50), abs=1e-4)


def test_scores_that_lie_far_apart_keep_finite_gradients():
    scores = torch.tensor([[900.0, -900.0], [0.0, 5.0]], requires_grad=True)
    found = log_assignment(scores, torch.tensor(0.0))
    found[0, 0].backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(scores.grad).all()


def test_a_point_that_nobody_resembles_has_no_partner():
    first = Points(torch.eye(16)[:5], torch.zeros(5, 3))
    second = Points(torch.eye(16)[1:7], torch.zeros(6, 3))
    found = log_assignment(*GlueArchitecture(width=16, sharpness=40.0).build()(first, second))
    shares = found.exp().detach().numpy()
    assert shares[0, -1] > 0.9
    assert np.diag(shares[1:5, :4]) == pytest.approx(1, abs=0.1)
    assert shares[-1, 4:6] == pytest.approx(1, abs=0.1)
