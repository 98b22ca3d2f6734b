"""Deformations along one axis, and within thick slices only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import DisplacementField
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.numerics.spaces import canonical
from retreg_server.registration.volume.deformation import deform, pair_of, suitable_leeway
from retreg_server.registration.volume.field_gauss_newton import (
    DAMPING,
    Normal,
    Stiffness,
    smooth_step,
)
from retreg_server.registration.volume.leeway import Leeway, along_phase, within_slices
from retreg_server.registration.volume.volume_pair import PreparedVolume

THICKER = 3


def in_thick_slices(image: Image, axis: int = 2) -> Image:
    """Blocks of THICKER slices across an axis (i, j, k) averaged."""
    count = image.grid.size[axis] // THICKER
    values = np.moveaxis(image.grey(), 2 - axis, 0)[: count * THICKER]
    values = values.reshape(count, THICKER, *values.shape[1:]).mean(axis=1)
    step = np.eye(4)
    step[axis, axis], step[axis, 3] = THICKER, (THICKER - 1) / 2
    i, j, k = (count if n == axis else image.grid.size[n] for n in range(3))
    grid = Grid((i, j, k), image.grid.world_from_index @ step)
    return Image(np.moveaxis(values, 0, 2 - axis)[None].astype(np.float32), grid)


def still_heads(seed: int = 5, moving: str = "t2"):
    return make_head_pair(
        seed, spacing_mm=4.0, rotation_deg=0.0, shift_mm=(0, 0, 0), stretch=0.0, moving=moving
    )


def deformed(fixed: Image, moving: Image, phase: str = "") -> np.ndarray:
    """The transform of the fixed to the moving world, without an affine."""
    prepared = PreparedVolume.of(fixed, "fixed"), PreparedVolume.of(moving, "moving")
    return deform(*prepared, np.eye(4), np.eye(4), phase=phase).forward


def test_a_distortion_along_one_axis_is_undone_better_when_the_axis_is_known():
    heads = still_heads()
    grid = heads.moving.grid
    x, y, z = ((grid.lattice() - grid.centre) / 45.0).T
    axis = grid.direction[:, 1]  # of the coarser volume
    shifts = 7 * np.outer(axis, np.sin(x + 1) * np.cos(z) * np.cos(y))
    fixed_from_moving = DisplacementField(shifts.reshape(3, *grid.shape), grid)
    moving = resample(heads.moving, fixed_from_moving, grid)
    points = heads.landmarks

    found = {phase: deformed(heads.fixed, moving, phase)(points) for phase in ("", "AP")}
    errors = {
        phase: np.linalg.norm(fixed_from_moving(each) - points, axis=1).mean()
        for phase, each in found.items()
    }
    assert errors["AP"] < 0.95 * errors[""]
    moved = found["AP"] - points
    np.testing.assert_allclose(moved, np.outer(moved @ axis, axis), atol=0.01)


def test_what_meets_in_thick_slices_is_not_moved_across_them():
    axis, heads = 2, still_heads()
    fixed, moving = (in_thick_slices(each, axis) for each in (heads.fixed, heads.moving))
    moved = deformed(fixed, moving)(heads.landmarks) - heads.landmarks
    np.testing.assert_allclose(moved[:, axis], 0, atol=0.01)
    assert np.linalg.norm(moved, axis=1).mean() < 0.3


@pytest.mark.parametrize("axis", [0, 2])
def test_thick_slices_hold_back_only_what_meets_already(axis):
    heads = still_heads()
    images = (in_thick_slices(each, axis) for each in (heads.fixed, heads.moving))
    prepared = tuple(PreparedVolume.of(each, "fixed") for each in images)
    apart = np.eye(4)
    apart[axis, 3] = 15.0
    held, free = (
        suitable_leeway(pair_of(*prepared), prepared, matrix, "")
        for matrix in (np.eye(4), apart)
    )
    assert held is not None
    assert free is None
    np.testing.assert_allclose(held.allowed, np.eye(3) - np.diag(np.eye(3)[axis]), atol=1e-6)


def test_the_phase_axis_is_that_of_the_coarser_volume_wherever_it_is_turned():
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    fine = canonical(Image(np.zeros((1, 20, 20, 20), np.float32), Grid((20, 20, 20), np.eye(4))))
    coarse_grid = Grid((20, 20, 20), turn @ np.diag([2.0, 2.0, 2.0, 1.0]))
    coarse = canonical(Image(np.zeros((1, 20, 20, 20), np.float32), coarse_grid))
    for domain, target, axis in (
        (fine, coarse, [-0.6, 0.8, 0]),
        (coarse, fine, [0, 1, 0]),
    ):
        allowed = along_phase(domain, target, np.eye(4), "AP").allowed.numpy()
        np.testing.assert_allclose(allowed, np.outer(axis, axis), atol=1e-6)


def test_cubic_voxels_leave_every_freedom():
    volume = canonical(still_heads().fixed)
    assert within_slices(volume, volume, np.eye(4)) is None


def test_the_step_solves_the_equations_of_the_allowed_directions():
    random = np.random.default_rng(3)
    shape, axis = (2, 1, 1), np.array([0.6, 0.8, 0.0])
    factors = random.normal(size=(2, 3, 5))
    matrices = factors @ factors.transpose(0, 2, 1)
    pulls = random.normal(size=(3, *shape))
    entries = [matrices[:, a, b] for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
    normal = Normal(
        torch.from_numpy(np.stack(entries).reshape(6, *shape)), torch.from_numpy(pulls)
    )
    leeway = Leeway(torch.from_numpy(np.outer(axis, axis)), 2.0)
    step = smooth_step(normal, torch.zeros(3, *shape).double(), Stiffness(0.1, 0.0), 50, leeway)
    system = np.diag(np.einsum("a,nab,b->n", axis, matrices, axis) + DAMPING)
    system += 2.0 * 0.1 * np.array([[1, -1], [-1, 1]])
    along = np.linalg.solve(system, axis @ pulls.reshape(3, 2))
    np.testing.assert_allclose(step.numpy().reshape(3, 2), np.outer(axis, along), atol=1e-2)
