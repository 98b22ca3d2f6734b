"""Shifts on a lattice: their order, their units, and their place in the world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from retreg_server.registration.numerics.fields import composed, warped
from retreg_server.registration.numerics.lattice_displacement import (
    displacement_from_field,
    field_from_displacement,
    rescaled,
    smoothed,
)
from retreg_server.registration.numerics.spaces import TensorVolume, index_from_norm

SIZE = (7, 8, 9)  # i, j, k


def a_lattice() -> TensorVolume:
    """Cubic voxels of 3 mm along oblique axes."""
    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    world_from_index = np.eye(4)
    world_from_index[:3, :3] = 3 * turn
    world_from_index[:3, 3] = [10, -20, 5]
    return TensorVolume(torch.zeros(1, 1, *SIZE[::-1]), world_from_index @ index_from_norm(SIZE))


def a_shift(seed: int, scale: float = 1.0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(scale * random.normal(size=(1, 3, *SIZE[::-1]))).float()


def test_a_volume_is_looked_up_at_x_plus_its_shift():
    random = np.random.default_rng(1)
    volume, shift = random.normal(size=SIZE[::-1]), a_shift(2)
    k, j, i = np.indices(SIZE[::-1])
    x, y, z = shift[0].double().numpy()
    expected = map_coordinates(volume, [k + z, j + y, i + x], order=1, mode="nearest")
    found = warped(torch.from_numpy(volume).float()[None, None], shift)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_first_of_two_shifts_moves_the_point_first():
    first, then = a_shift(3), a_shift(4)
    k, j, i = np.indices(SIZE[::-1])
    places = [c + first[0, n].double().numpy() for n, c in ((2, k), (1, j), (0, i))]
    both = composed(first, then)[0].double().numpy()
    for axis in range(3):
        moved = map_coordinates(then[0, axis].double().numpy(), places, order=1, mode="nearest")
        np.testing.assert_allclose(both[axis], first[0, axis].numpy() + moved, atol=1e-5)


def test_a_field_in_the_world_moves_the_nodes_as_the_shift_does():
    lattice, shift = a_lattice(), a_shift(5)
    field = field_from_displacement(shift, lattice)
    nodes = lattice.voxel_centres()
    k, j, i = np.indices(SIZE[::-1])
    index = np.stack([c.ravel() for c in (i, j, k)], axis=1) + shift[0].flatten(1).T.numpy()
    moved = index @ lattice.world_from_index[:3, :3].T + lattice.world_from_index[:3, 3]
    np.testing.assert_allclose(field(nodes), moved, atol=1e-4)
    torch.testing.assert_close(displacement_from_field(field, lattice), shift, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(18, 16, 14), (9, 8, 7)])
def test_another_lattice_over_the_same_box_holds_the_same_displacement(shape):
    lattice = a_lattice()
    matrix = np.eye(4) + 0.05 * np.arange(16).reshape(4, 4)
    matrix[3] = [0, 0, 0, 1]

    def linear(points: np.ndarray) -> np.ndarray:
        return points @ matrix[:3, :3].T

    shift = displacement_from_field(linear, lattice)
    field = field_from_displacement(rescaled(shift, torch.Size(shape)), lattice)
    inner = lattice.voxel_centres().reshape(*SIZE[::-1], 3)[2:-2, 2:-2, 2:-2].reshape(-1, 3)
    np.testing.assert_allclose(field(inner), linear(inner), atol=1e-3)


def test_smoothing_keeps_constants_and_halves_a_spike():
    spike = torch.zeros(1, 1, 5, 5, 5)
    spike[..., 2, 2, 2] = 1
    assert float(smoothed(spike)[0, 0, 2, 2, 2]) == pytest.approx(1 / 8)
    constant = torch.full((1, 3, 4, 4, 4), 2.5)
    torch.testing.assert_close(smoothed(constant), constant)
