"""The SmoothProper layer against SciPy, and what it does to an energy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import fft, sparse
from scipy.optimize import minimize
from scipy.sparse.linalg import spsolve

from retreg_server.registration.networks.cost_volume import displacement_bases
from retreg_server.registration.networks.smooth_proper import (
    SmoothProper,
    certainty,
    closest_distribution,
    energy,
    expected,
    negative_laplacian,
    screened_poisson,
    smooth_field,
)

SHAPES = [(9, 7), (4, 5, 6)]
ONE = torch.ones((), dtype=torch.float64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def distributions(shape, radius=1, batch=2, sharpness=3.0, seed=0):
    bases = displacement_bases(len(shape), radius).double()
    logits = torch.randn(batch, len(bases), *shape, generator=rng(seed), dtype=torch.float64)
    return bases, torch.softmax(sharpness * logits, dim=1)


def weights(shape, batch=2):
    return 0.01 + torch.rand(batch, 1, *shape, generator=rng(9), dtype=torch.float64)


def laplacian_matrix(shape):
    """The graph Laplacian of a grid, assembled from one axis at a time."""
    total = sparse.csr_matrix((int(np.prod(shape)),) * 2)
    for axis, n in enumerate(shape):
        steps = sparse.diags([-np.ones(n - 1), np.ones(n - 1)], [0, 1], shape=(n - 1, n))
        parts = [sparse.identity(m) for m in shape]
        parts[axis] = steps.T @ steps
        product = parts[0]
        for part in parts[1:]:
            product = sparse.kron(product, part)
        total = total + product
    return total.tocsr()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_exact_smoothing_solves_the_sparse_system(shape):
    right = torch.randn(1, 1, *shape, generator=rng(), dtype=torch.float64)
    found = screened_poisson(right, 2.5, 0.3 * ONE)
    system = 0.3 * sparse.identity(right.numel()) + 2.5 * laplacian_matrix(shape)
    np.testing.assert_allclose(
        found.flatten(), spsolve(system.tocsc(), right.flatten().numpy()), atol=1e-10
    )


def test_the_exact_smoothing_is_a_division_of_scipys_cosine_transform():
    right = torch.randn(1, 1, 12, 10, generator=rng(3), dtype=torch.float64)
    waves = [2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in (12, 10)]
    spectrum = fft.dctn(right[0, 0].numpy(), norm="ortho")
    expected_field = fft.idctn(spectrum / (1 + 4 * (waves[0][:, None] + waves[1])), norm="ortho")
    found = screened_poisson(right, 4.0, ONE)
    np.testing.assert_allclose(found[0, 0], expected_field, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_conjugate_gradients_come_close_to_the_sparse_solution(shape):
    target = torch.randn(1, 1, *shape, generator=rng(1), dtype=torch.float64)
    weight = weights(shape, batch=1)
    found = smooth_field(target, 2.0, weight)
    system = sparse.diags(weight.flatten().numpy()) + 2.0 * laplacian_matrix(shape)
    exact = spsolve(system.tocsc(), (weight * target).flatten().numpy())
    start = np.abs(target.flatten().numpy() - exact).max()
    assert np.abs(found.flatten().numpy() - exact).max() < 1e-3 * start


@pytest.mark.parametrize("shape", SHAPES)
def test_the_laplacian_is_the_assembled_one(shape):
    field = torch.randn(1, 2, *shape, generator=rng(2), dtype=torch.float64)
    np.testing.assert_allclose(
        negative_laplacian(field)[0, 1].flatten(),
        laplacian_matrix(shape) @ field[0, 1].flatten().numpy(),
        atol=1e-12,
    )


@pytest.mark.parametrize("alpha", [0.5, 2.0, 10.0])
def test_the_distribution_is_the_one_a_general_solver_finds(alpha):
    bases, p = distributions((1, 4), batch=1)
    v = torch.randn(1, 2, 1, 4, generator=rng(5), dtype=torch.float64)
    found = closest_distribution(p, v, bases, alpha)
    for x in range(4):
        place = (..., slice(x, x + 1))

        def cost_and_slope(q, place=place):
            q = torch.from_numpy(q).reshape(1, -1, 1, 1).requires_grad_(True)
            cost = energy(p[place], q, v[place], bases, alpha, 0.0)
            (slope,) = torch.autograd.grad(cost.sum(), q)
            return float(cost.detach()), slope.flatten().numpy()

        count = len(bases)
        oracle = minimize(
            cost_and_slope, np.full(count, 1 / count), jac=True, method="SLSQP",
            bounds=[(0, 1)] * count,
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        assert oracle.success
        np.testing.assert_allclose(found[0, :, 0, x], oracle.x, atol=2e-6)


@pytest.mark.parametrize("radius", [2, 4])
@pytest.mark.parametrize("alpha", [0.5, 2.0, 20.0])
def test_the_distribution_is_stationary_with_many_displacements(radius, alpha):
    # The conditions of Karush, Kuhn and Tucker: the slope is equal where q > 0, larger elsewhere.
    bases, p = distributions((8, 8), radius)
    v = torch.randn(2, 2, 8, 8, generator=rng(6), dtype=torch.float64)
    q = closest_distribution(p, v, bases, alpha).requires_grad_(True)
    np.testing.assert_allclose(q.detach().sum(dim=1), 1, atol=1e-9)
    assert q.min() >= 0
    (slope,) = torch.autograd.grad(energy(p, q, v, bases, alpha, 0.0).sum(), q)
    used = q > 0
    level = (slope * used).sum(dim=1, keepdim=True) / used.sum(dim=1, keepdim=True)
    assert ((slope - level).abs() * used).max() < 1e-7
    assert ((slope - level) * ~used).min() > -1e-7


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_energy_falls_with_every_half_step(shape, weighted):
    bases, p = distributions(shape)
    weight = weights(shape) if weighted else None
    for alpha, beta in ((0.5, 1.0), (2.0, 0.3), (1.0, 10.0)):
        q, v = p, torch.zeros(2, len(shape), *shape, dtype=torch.float64)
        values = [energy(p, q, v, bases, alpha, beta, weight)]
        for _ in range(5):
            v = smooth_field(expected(q, bases), alpha * beta, weight, v)
            values.append(energy(p, q, v, bases, alpha, beta, weight))
            q = closest_distribution(p, v, bases, alpha, q)
            values.append(energy(p, q, v, bases, alpha, beta, weight))
        falls = torch.stack(values).diff(dim=0)
        assert falls.max() <= 1e-9
        assert falls[0].max() < -1e-3


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)])
def test_gradients_are_those_of_finite_differences(shape, weighted):
    bases = displacement_bases(len(shape), 1).double()
    layer = SmoothProper(bases, steps=2, alpha=1.5, beta=0.7).double()
    logits = torch.randn(1, len(bases), *shape, generator=rng(4), dtype=torch.float64)
    logits.requires_grad_(True)
    numbers = (layer.log_alpha, layer.log_beta)

    def field(logits, *_numbers):
        p = torch.softmax(2 * logits, dim=1)
        return layer(p, certainty(p) if weighted else None)

    assert torch.autograd.gradcheck(field, (logits, *numbers), eps=1e-6, atol=1e-5,
                                    fast_mode=True)  # fmt: skip


def test_a_field_of_certain_pixels_is_kept_and_passed_on_to_unsure_ones():
    bases = displacement_bases(2, 3)
    p = torch.full((1, len(bases), 15, 15), 1 / len(bases))
    true = int((bases == torch.tensor([2.0, -1.0])).all(dim=1).nonzero()[0, 0])
    p[:, :, 7, 7] = torch.nn.functional.one_hot(torch.tensor(true), len(bases))
    layer = SmoothProper(bases, steps=10, alpha=4.0)
    with torch.no_grad():
        passed_on = layer(p, certainty(p, 1e-4))
        without_weights = layer(p)
    truth = torch.tensor([2.0, -1.0])[:, None, None]
    assert (passed_on[0] - truth).norm(dim=0).max() < 0.5
    assert (without_weights[0] - truth).norm(dim=0)[0, 0] > 2


def test_certainty_is_one_for_a_choice_and_least_for_none():
    p = torch.tensor([[1.0, 0.25], [0.0, 0.25], [0.0, 0.25], [0.0, 0.25]])[None, :, :, None]
    found = certainty(p, least=0.05)
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 0.05]))
