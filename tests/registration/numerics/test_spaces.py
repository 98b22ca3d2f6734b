"""Normalised coordinates, canonical axes and working volumes against SciPy and known points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg_server.registration.numerics.spaces import TensorVolume, canonical, isotropic, sample

WHOLE = np.array([[-1.0] * 3, [1.0] * 3])


def smooth_volume(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 3).astype(np.float32)


def image(array: np.ndarray, matrix: np.ndarray) -> Image:
    return Image(array[None], Grid(array.shape[::-1], matrix))


def oblique(spacing: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    turn = Rotation.from_rotvec([0.3, -0.2, 0.4]).as_matrix()
    matrix[:3, :3] = turn * spacing
    matrix[:3, 3] = [310.0, -80.0, 45.0]
    return matrix


def world_centre_of_mass(tensor: torch.Tensor, world_from_index: np.ndarray) -> np.ndarray:
    centre = ndimage.center_of_mass(tensor[0, 0].numpy())[::-1]
    return apply_matrix(world_from_index, np.array([centre]))[0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True)])
def test_canonical_axes_do_not_depend_on_how_the_voxels_are_stored(order, flips):
    array, matrix = smooth_volume((12, 14, 16)), oblique((1.0, 1.5, 2.0))
    stored = array.transpose([2 - order[2], 2 - order[1], 2 - order[0]])
    stored_matrix = matrix.copy()
    stored_matrix[:3, :3] = matrix[:3, list(order)]
    for axis in range(3):
        if flips[axis]:
            stored = np.flip(stored, 2 - axis)
            last = stored.shape[2 - axis] - 1
            stored_matrix[:3, 3] += last * stored_matrix[:3, axis]
            stored_matrix[:3, axis] *= -1
    expected = canonical(image(array, matrix))
    found = canonical(image(stored.copy(), stored_matrix))
    assert torch.equal(found.tensor, expected.tensor)
    np.testing.assert_allclose(found.world_from_norm, expected.world_from_norm, atol=1e-9)


def test_canonical_axes_point_along_left_posterior_and_superior():
    matrix = np.diag([-1.0, 1.0, -2.0, 1.0])
    found = canonical(image(smooth_volume((5, 6, 7)), matrix))
    np.testing.assert_allclose(found.world_from_index[:3, :3], np.diag([1.0, 1.0, 2.0]), atol=1e-9)


def test_a_working_volume_keeps_a_blob_where_it_is_in_the_world():
    array = np.zeros((20, 60, 64), dtype=np.float32)
    array[11, 35, 22] = 1
    array = ndimage.gaussian_filter(array, (1.2, 5, 5))
    source = canonical(image(array, oblique((0.7, 0.7, 4.0))))
    truth = world_centre_of_mass(source.tensor, source.world_from_index)
    cut = isotropic(source, 2.0, WHOLE, 4)
    np.testing.assert_allclose(cut.spacing, 2.0, atol=1e-9)
    assert all(n % 4 == 0 for n in cut.size)
    found = world_centre_of_mass(cut.tensor[:, :1], cut.world_from_index)
    np.testing.assert_allclose(found, truth, atol=0.05)


def test_validity_is_one_inside_the_image_and_zero_outside():
    source = canonical(image(np.ones((10, 10, 10), dtype=np.float32), np.eye(4)))
    cut = isotropic(source, 1.0, 2 * WHOLE, 4)
    inside = np.abs(cut.voxel_centres() - 4.5).max(axis=1)
    valid = cut.tensor[0, 1].numpy().ravel()
    assert (valid[inside <= 4.5] > 0.999).all()
    assert (valid[inside >= 6] == 0).all()


def test_sampling_through_a_matrix_agrees_with_scipy():
    source = canonical(image(smooth_volume((18, 20, 22)), oblique((1.1, 0.9, 1.3))))
    inner = source.world_from_norm @ np.diag([0.4] * 3 + [1])
    target = TensorVolume(torch.empty(1, 1, 8, 9, 10), inner)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.1, 0.05, -0.1]).as_matrix()
    turn[:3, 3] = -turn[:3, :3] @ source.world_from_norm[:3, 3] + source.world_from_norm[:3, 3]
    index = apply_matrix(
        np.linalg.inv(source.world_from_index) @ turn @ target.world_from_index,
        np.indices((8, 9, 10))[::-1].reshape(3, -1).T.astype(float),
    )
    expected = ndimage.map_coordinates(source.tensor[0, 0].numpy(), index.T[::-1], order=1)
    found = sample(source, target, turn)[0, 0].numpy().ravel()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_pooling_keeps_the_normalised_coordinates():
    source = canonical(image(smooth_volume((8, 8, 8)), oblique((1.0, 1.0, 1.0))))
    pooled = source.pooled(2)
    blocks = source.tensor[0, 0].numpy().reshape(4, 2, 4, 2, 4, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(pooled.tensor[0, 0].numpy(), blocks, atol=1e-6)
    np.testing.assert_allclose(pooled.spacing, 2.0, atol=1e-9)
