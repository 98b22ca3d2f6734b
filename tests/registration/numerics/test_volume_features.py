"""MIND-SSC against a direct evaluation of its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from retreg_server.registration.numerics.volume_features import CHANNELS, mind_ssc, mind_ssc_at


def by_definition(volume: np.ndarray, place: tuple[int, int, int]) -> np.ndarray:
    """The sorted channels at one voxel: twelve patch distances of neighbours, one by one."""
    units = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    pairs = [(a, b) for a, b in itertools.combinations(units, 2) if not (a + b == 0).all()]

    def patch(offset: np.ndarray) -> np.ndarray:
        k, j, i = np.array(place) + offset
        return volume[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2]

    distances = np.array([((patch(a) - patch(b)) ** 2).mean() for a, b in pairs])
    distances -= distances.min()
    return np.sort(np.exp(-distances / distances.mean()))


def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)


def test_every_channel_is_the_patch_distance_of_two_neighbours():
    found = mind_ssc(torch.from_numpy(noise())[None, None])[0].numpy()
    assert found.shape == (CHANNELS, 9, 10, 11)
    for place in [(4, 4, 4), (3, 5, 6), (5, 3, 7)]:
        expected = by_definition(noise().astype(float), place)
        np.testing.assert_allclose(np.sort(found[:, *place]), expected, atol=1e-4)


def test_inverted_contrast_and_another_scale_give_the_same_descriptor():
    volume = torch.from_numpy(noise())[None, None]
    torch.testing.assert_close(mind_ssc(3 - 5 * volume), mind_ssc(volume), atol=1e-4, rtol=0)


def test_a_shifted_volume_gives_a_shifted_descriptor():
    volume = torch.from_numpy(noise())[None, None]
    shifted = mind_ssc(volume.roll(1, dims=4))[..., 3:-3, 3:-3, 4:-2]
    # The typical variance is a mean over the volume, which hardly changes at its border.
    torch.testing.assert_close(shifted, mind_ssc(volume)[..., 3:-3, 3:-3, 3:-3], atol=1e-3, rtol=0)


def test_an_empty_volume_has_finite_descriptors():
    assert torch.isfinite(mind_ssc(torch.zeros(1, 1, 8, 8, 8))).all()


@pytest.mark.parametrize("shape", [(9, 10, 11), (5, 14, 6)])
def test_descriptors_of_single_voxels_are_those_of_the_whole_volume(shape):
    volume = torch.from_numpy(np.random.default_rng(1).normal(size=shape)).float()[None, None]
    voxels = torch.from_numpy(np.random.default_rng(2).integers(0, shape, (4, 50, 3)))
    k, j, i = voxels.movedim(-1, 0)
    found = mind_ssc_at(volume, torch.stack([k, j, i]))
    torch.testing.assert_close(found, mind_ssc(volume)[0][:, k, j, i], atol=1e-5, rtol=0)
