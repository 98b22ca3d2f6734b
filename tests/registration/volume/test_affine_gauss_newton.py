"""Gauss-Newton on MIND-SSC: known transforms between volumes of opposite contrast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.linalg import expm

from retreg.geometry import apply_matrix
from retreg_server.registration.numerics.spaces import TensorVolume
from retreg_server.registration.volume.affine_gauss_newton import FAMILY_SIZES, Aligner, generators
from retreg_server.registration.volume.volume_pair import VolumePairLevel

SIDE = 40
CENTRE = np.array([30.0, -200.0, 7.0])
TURNS = {"rigid": (0.1, 0.0, 0.0), "similarity": (0.1, 0.06, 0.0), "affine": (0.1, 0.06, 0.05)}


def volume(array: np.ndarray) -> TensorVolume:
    """Voxels of 3 mm around CENTRE, all of weight 1."""
    world_from_norm = np.diag([1.5 * SIDE] * 3 + [1.0])
    world_from_norm[:3, 3] = CENTRE
    tensor = torch.from_numpy(np.stack([array, np.ones_like(array)])[None]).float()
    return TensorVolume(tensor, world_from_norm)


def texture() -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(SIDE,) * 3)
    smooth = ndimage.gaussian_filter(noise, 2)
    return smooth / smooth.std()


def known(family: str) -> np.ndarray:
    turn, growth, shear = TURNS[family]
    change = np.zeros((4, 4))
    change[:3, :3] = [[growth, -turn, shear], [turn, growth, 0], [shear, 0, growth]]
    about = np.eye(4)
    about[:3, 3] = CENTRE
    matrix = about @ expm(change) @ np.linalg.inv(about)
    matrix[:3, 3] += [3.0, -2.0, 1.5]
    return matrix


def pair_with(target_from_domain: np.ndarray) -> VolumePairLevel:
    """The domain is the target's pattern seen through the matrix, with inverted contrast."""
    target = volume(texture())
    points = apply_matrix(target_from_domain, target.voxel_centres())
    index = apply_matrix(np.linalg.inv(target.world_from_index), points)
    seen = ndimage.map_coordinates(texture(), index.T[::-1], order=3, mode="nearest")
    return VolumePairLevel(volume(2 - seen.reshape((SIDE,) * 3)), target)


@pytest.mark.parametrize("family", ["rigid", "similarity", "affine"])
def test_a_known_transform_is_recovered_in_opposite_contrast(family):
    truth = known(family)
    aligner = Aligner(pair_with(truth), 6000)
    found = aligner.refine(np.eye(4), generators(family, CENTRE, 50.0), 20)
    points = CENTRE + np.random.default_rng(0).uniform(-40, 40, (200, 3))
    error = np.linalg.norm(apply_matrix(found, points) - apply_matrix(truth, points), axis=1)
    assert error.mean() < 0.15
    assert aligner.distance(found) < 0.2 * aligner.chance < 0.9 * aligner.distance(np.eye(4)) * 2


def test_identical_volumes_stay_where_they_are():
    same = volume(texture())
    found = Aligner(VolumePairLevel(same, same), 4000).refine(
        np.eye(4), generators("affine", CENTRE, 50.0), 5
    )
    np.testing.assert_allclose(found, np.eye(4), atol=1e-6)


@pytest.mark.parametrize("family", list(FAMILY_SIZES))
def test_the_generators_span_the_family(family):
    steps = generators(family, CENTRE, 50.0)
    assert len(steps) == FAMILY_SIZES[family]
    assert np.linalg.matrix_rank(steps.reshape(len(steps), 16)) == len(steps)
    matrix = expm(np.einsum("n,nij->ij", np.linspace(-0.3, 0.4, len(steps)), steps))
    gram = matrix[:3, :3].T @ matrix[:3, :3]
    scale = np.trace(gram) / 3
    assert np.allclose(gram, scale * np.eye(3), atol=1e-9) == (family != "affine")
    assert np.isclose(scale, 1, atol=1e-9) == (family == "rigid")


def test_voxels_of_weight_zero_have_no_say():
    truth = known("rigid")
    pair = pair_with(truth)
    half = pair.domain.tensor.clone()
    half[0, 0, :, :, SIDE // 2 :] = torch.from_numpy(texture())[:, :, SIDE // 2 :].flip(0)
    half[0, 1, :, :, SIDE // 2 - 2 :] = 0
    spoilt = VolumePairLevel(TensorVolume(half, pair.domain.world_from_norm), pair.target)
    found = Aligner(spoilt, 6000).refine(np.eye(4), generators("rigid", CENTRE, 50.0), 20)
    points = CENTRE + np.random.default_rng(0).uniform(-30, 30, (100, 3))
    error = np.linalg.norm(apply_matrix(found, points) - apply_matrix(truth, points), axis=1)
    assert error.mean() < 0.4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_that_hardly_overlap_are_not_alike(axis):
    aside = np.eye(4)
    aside[axis, 3] = 0.9 * 3.0 * SIDE
    aligner = Aligner(pair_with(aside), 6000)  # the sliver that they share is the same in both
    assert aligner.distance(aside) > 0.8 * aligner.chance
