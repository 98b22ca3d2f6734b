from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from retreg_server.phantoms.anatomy import EXTRACEREBRAL, Tissue
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair


@pytest.fixture(scope="module")
def a_turned_pair() -> PhantomPair:
    return make_head_pair(5, spacing_mm=3.0, rotation_deg=110.0)


@pytest.fixture(scope="module")
def a_finer_pair() -> PhantomPair:
    return make_head_pair(3, spacing_mm=2.5)


def moving_values_at_fixed_voxels(pair: PhantomPair, array: np.ndarray, order: int) -> np.ndarray:
    """array on the moving grid, sampled at every second voxel of the fixed grid."""
    index = pair.moving.grid.index(pair.truth(pair.fixed.grid.lattice(2)))
    return ndimage.map_coordinates(array, index[:, ::-1].T, order=order, cval=0)


def test_the_same_seed_gives_the_same_pair() -> None:
    first, second = make_head_pair(7, spacing_mm=6.0), make_head_pair(7, spacing_mm=6.0)
    assert np.array_equal(first.fixed.array, second.fixed.array)
    assert np.array_equal(first.moving.array, second.moving.array)
    other = make_head_pair(8, spacing_mm=6.0)
    assert not np.allclose(first.fixed.array, other.fixed.array, atol=100)


def test_the_truth_brings_the_labels_together(a_turned_pair: PhantomPair) -> None:
    pair = a_turned_pair
    moved = moving_values_at_fixed_voxels(pair, pair.moving_labels.array[0], order=0)
    here = pair.fixed_labels.array[0][::2, ::2, ::2].ravel()
    for group in ((Tissue.WHITE_LEFT,), (Tissue.WHITE_RIGHT,), (Tissue.VENTRICLE_LEFT,)):
        one, other = np.isin(here, group), np.isin(moved, group)
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.75


def test_the_truth_is_the_best_place_for_one_contrast() -> None:
    pair = make_head_pair(6, spacing_mm=3.0, rotation_deg=40.0, moving="t1", noise=0.01)
    here = pair.fixed.array[0][::2, ::2, ::2].ravel()
    points = pair.truth(pair.fixed.grid.lattice(2))

    def correlation(move: np.ndarray) -> float:
        index = pair.moving.grid.index(points + move)
        there = ndimage.map_coordinates(pair.moving.array[0], index[:, ::-1].T, order=1)
        return float(np.corrcoef(here, there)[0, 1])

    matched = correlation(np.zeros(3))
    assert matched > 0.9
    for axis in range(3):
        for way in (-2.0, 2.0):
            assert correlation(way * np.eye(3)[axis]) < matched - 0.01


def test_cerebrospinal_fluid_is_dark_in_t1_and_bright_in_t2(a_turned_pair: PhantomPair) -> None:
    pair = a_turned_pair

    def level(image: np.ndarray, labels: np.ndarray, tissue: Tissue) -> float:
        return float(np.median(image[labels == tissue]))

    t1, t2 = ((pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels))
    for (image, labels), darker, brighter in (
        (t1, Tissue.VENTRICLE_LEFT, Tissue.WHITE_LEFT),
        (t2, Tissue.WHITE_LEFT, Tissue.VENTRICLE_LEFT),
    ):
        dark = level(image.array[0], labels.array[0], darker)
        assert level(image.array[0], labels.array[0], brighter) > 2 * dark


def test_every_tissue_occurs_and_the_paired_ones_lie_on_their_side(
    a_finer_pair: PhantomPair,
) -> None:
    labels = a_finer_pair.fixed_labels.array[0]
    assert set(np.unique(labels)) == {int(tissue) for tissue in Tissue}
    for tissue in Tissue:
        if tissue.name.endswith(("_LEFT", "_RIGHT")) and "VENTRICLE" not in tissue.name:
            k, j, i = np.nonzero(labels == tissue)
            x = a_finer_pair.fixed.grid.world(np.stack([i, j, k], axis=1))[:, 0].mean()
            assert (x > 0) == tissue.name.endswith("LEFT")


def test_left_and_right_are_not_mirror_images(a_finer_pair: PhantomPair) -> None:
    labels = a_finer_pair.fixed_labels.array[0]
    white = np.isin(labels, (Tissue.WHITE_LEFT, Tissue.WHITE_RIGHT))
    mirrored = white[:, :, ::-1]
    assert 2 * (white & mirrored).sum() / (white.sum() + mirrored.sum()) < 0.93


def test_a_stripped_head_has_nothing_outside_the_brain() -> None:
    pair = make_head_pair(3, spacing_mm=4.0, stripped=True)
    for image, labels in ((pair.fixed, pair.fixed_labels), (pair.moving, pair.moving_labels)):
        assert not np.isin(labels.array, EXTRACEREBRAL).any()
        assert np.median(image.array[labels.array == 0]) < 60


def test_the_grids_differ_and_the_turn_is_the_one_asked_for(a_turned_pair: PhantomPair) -> None:
    pair = make_head_pair(9, spacing_mm=6.0, rotation_deg=170.0, stretch=0.0)
    assert not np.allclose(pair.fixed.grid.spacing, pair.moving.grid.spacing)
    direction = np.abs(pair.moving.grid.direction)
    assert (direction - np.eye(3)).max() > 0.01
    turn = pair.truth.moving_from_fixed[:3, :3]
    assert np.rad2deg(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(170.0)
    assert a_turned_pair.moving.grid.contains(a_turned_pair.truth(a_turned_pair.landmarks)).all()
