"""Gauss-Newton steps against SciPy's sparse solver and a known shift."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from retreg_server.registration.numerics.fields import warped
from retreg_server.registration.volume.field_gauss_newton import (
    DAMPING,
    Normal,
    Stiffness,
    negative_laplacian,
    normal_equations,
    smooth_step,
)

SHAPE = (5, 6, 4)
PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


def laplacian_matrix() -> sparse.csr_array:
    """-Laplacian with reflecting borders, as a sum of Kronecker products."""
    def along(n: int) -> np.ndarray:
        steps = np.diff(np.eye(n), axis=0)
        return steps.T @ steps

    eyes = [np.eye(n) for n in SHAPE]
    parts = [[along(n) if axis == m else eyes[m] for m in range(3)] for axis, n in enumerate(SHAPE)]
    return sparse.csr_array(sum(np.kron(np.kron(a, b), c) for a, b, c in parts))


def test_the_step_solves_the_linear_system():
    random = np.random.default_rng(1)
    count = int(np.prod(SHAPE))
    factors = random.normal(size=(count, 3, 5))
    matrices = factors @ factors.transpose(0, 2, 1)
    pulls, shift = random.normal(size=(2, 3, count))
    stiffness = Stiffness(0.4, 0.2)
    laplacian = laplacian_matrix()
    smooth = sparse.kron(np.eye(3), 0.4 * laplacian + 0.2 * laplacian @ laplacian)
    data = sparse.block_array(
        [[sparse.diags_array(matrices[:, a, b]) for b in range(3)] for a in range(3)]
    )
    system = data + smooth + DAMPING * sparse.eye_array(3 * count)
    expected = spsolve(system.tocsc(), pulls.ravel() - smooth @ shift.ravel())
    normal = Normal(
        torch.from_numpy(np.stack([matrices[:, a, b] for a, b in PAIRS]).reshape(6, *SHAPE)),
        torch.from_numpy(pulls.reshape(3, *SHAPE)),
    )
    found = smooth_step(normal, torch.from_numpy(shift.reshape(3, *SHAPE)), stiffness, 500)
    error = np.linalg.norm(found.numpy().ravel() - expected)
    assert error < 0.05 * np.linalg.norm(expected)


def test_a_linear_shift_costs_no_bending_inside():
    k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SHAPE), indexing="ij")
    linear = torch.stack([i + 2 * j, j - k, 0.5 * k])
    inner = negative_laplacian(linear)[:, 1:-1, 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.zeros_like(inner))


def waves(shape: tuple[int, int, int]) -> torch.Tensor:
    """Smooth channels (4, k, j, i) that vary in all directions."""
    k, j, i = np.indices(shape)
    arguments = (0.5 * i + 0.2 * j, 0.6 * j - 0.3 * k, 0.4 * k + 0.3 * i, 0.3 * (i + j + k))
    return torch.from_numpy(np.stack([np.sin(a) for a in arguments])).float()


def test_a_small_shift_is_found_in_one_step_on_either_lattice():
    moving = waves((16, 16, 16))
    truth = torch.tensor([0.4, -0.3, 0.2])
    fixed = warped(moving[None], truth[None, :, None, None, None].expand(1, 3, 16, 16, 16))[0]
    for pool in (1, 2):
        normal = normal_equations(fixed, moving, torch.ones(16, 16, 16), pool)
        start = torch.zeros(3, *[16 // pool] * 3)
        step = smooth_step(normal, start, Stiffness(0.5, 0.0), 200) * pool
        middle = step[:, 4 // pool : 12 // pool, 4 // pool : 12 // pool, 4 // pool : 12 // pool]
        np.testing.assert_allclose(middle.mean(dim=(1, 2, 3)), truth, atol=0.05)


def test_places_without_weight_have_no_say():
    fixed, moving = waves((8, 8, 8)), waves((8, 8, 8)).flip(1)
    normal = normal_equations(fixed, moving, torch.zeros(8, 8, 8), 1)
    assert not normal.matrices.any()
    assert not normal.pulls.any()


def test_the_normal_equations_are_sums_over_channels_and_means_over_blocks():
    shape, random = (8, 6, 10), np.random.default_rng(4)
    fixed, moving = random.normal(size=(2, 5, *shape))
    weight = random.uniform(size=shape) * (random.uniform(size=shape) > 0.5)
    weight[:2] = 0
    found = normal_equations(*(torch.from_numpy(each) for each in (fixed, moving, weight)), 2)

    rest = fixed - moving
    squared = (rest**2).mean(axis=0)
    typical = (squared * weight).sum() / weight.sum()
    weight = weight / (1 + squared / typical) ** 2
    slopes = [np.gradient((fixed + moving) / 2, axis=axis) for axis in (3, 2, 1)]
    blocks = (4, 2, 3, 2, 5, 2)
    for entry, (a, b) in enumerate(PAIRS):
        expected = (weight * (slopes[a] * slopes[b]).sum(axis=0)).reshape(blocks)
        np.testing.assert_allclose(found.matrices[entry], 4 * expected.mean(axis=(1, 3, 5)))
    for axis in range(3):
        expected = (weight * (slopes[axis] * rest).sum(axis=0)).reshape(blocks)
        np.testing.assert_allclose(found.pulls[axis], 2 * expected.mean(axis=(1, 3, 5)))
