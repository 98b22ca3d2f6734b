"""No folds, judged by SimpleITK and by differences of the finished field."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter

from retreg.geometry import Grid
from retreg.quality import jacobian_determinants
from retreg.transforms import DisplacementField
from retreg_server.registration.numerics.folding import SMALLEST, smallest_determinants, unfolded

SHAPE = (14, 16, 18)


def oblique_grid() -> Grid:
    world_from_index = np.eye(4)
    world_from_index[:3, :3] = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
    world_from_index[:3, :3] *= [2.0, 3.0, -2.5]
    world_from_index[:3, 3] = [-50, 20, 7]
    return Grid(SHAPE[::-1], world_from_index)


def a_field(length_mm: float, smoothness: float, grid: Grid | None = None) -> DisplacementField:
    random = np.random.default_rng(1)
    vectors = np.stack([gaussian_filter(random.normal(size=SHAPE), smoothness) for _ in range(3)])
    return DisplacementField(vectors * length_mm / vectors.std(), grid or oblique_grid())


def sitk_determinants(field: DisplacementField) -> np.ndarray:
    """By central differences; the filter does not know directions, so the grid must be upright."""
    image = sitk.GetImageFromArray(np.moveaxis(field.vectors_mm, 0, -1).copy(), isVector=True)
    image.SetSpacing(field.grid.spacing.tolist())
    return sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image))


def dense_determinants(field: DisplacementField) -> np.ndarray:
    """At random points inside and outside the grid, by tiny steps of the transform itself."""
    index = np.random.default_rng(2).uniform(-3, np.array(field.grid.size) + 2, size=(40000, 3))
    return jacobian_determinants(field, field.grid.world(index), np.eye(3), 1e-3)


@pytest.mark.parametrize("length_mm", [3.0, 8.0, 40.0])
def test_a_folded_field_comes_back_without_folds(length_mm):
    folded = a_field(length_mm, 1.0)
    assert (dense_determinants(folded) <= 0).any()
    mended = unfolded(folded)
    assert dense_determinants(mended).min() > 0


def test_simpleitk_finds_no_fold_either():
    folded = a_field(8.0, 1.0, Grid(SHAPE[::-1], np.diag([2.0, 3.0, 2.5, 1.0])))
    assert sitk_determinants(folded).min() < 0
    assert sitk_determinants(unfolded(folded))[1:-1, 1:-1, 1:-1].min() >= SMALLEST - 1e-6


def test_a_field_without_folds_stays_as_it_is():
    smooth = a_field(0.8, 3.0)
    np.testing.assert_allclose(unfolded(smooth).vectors_mm, smooth.vectors_mm, atol=1e-9)


def test_only_the_surroundings_of_a_fold_change():
    field = a_field(0.8, 3.0)
    vectors = field.vectors_mm.copy()
    vectors[:, 7, 8, 9] += 9.0
    mended = unfolded(DisplacementField(vectors, field.grid))
    changed = np.abs(mended.vectors_mm - vectors).max(axis=0) > 1e-9
    assert changed[7, 8, 9]
    assert changed.mean() < 0.2
    assert not changed[:2].any()


def test_the_determinants_in_the_corners_bound_those_inside():
    field = a_field(1.5, 1.5)
    shift = np.einsum("ab,bkji->akji", field.grid.index_from_world[:3, :3], field.vectors_mm)
    corners = smallest_determinants(torch.from_numpy(shift)[None])
    assert corners.shape == tuple(n + 1 for n in SHAPE)
    assert dense_determinants(field).min() > float(corners.min()) - 0.05
    assert dense_determinants(unfolded(field, 0.5)).min() > 0.4


def test_a_reflection_is_weakened_until_it_no_longer_folds():
    grid = Grid((6, 6, 6), np.eye(4))
    mirrored = DisplacementField.sampled(lambda points: points * [-1, 1, 1], grid)
    assert dense_determinants(unfolded(mirrored)).min() > SMALLEST / 2
