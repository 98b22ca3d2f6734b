"""Grids and their matrices."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import GeometryError, InputError
from retreg.geometry import Grid
from retreg.image import Image


def an_oblique_left_handed_grid() -> Grid:
    rotation = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([-0.7, 1.1, 3.0])
    matrix[:3, 3] = [120.0, -45.5, 7.25]
    return Grid((11, 17, 5), matrix)


def test_world_of_an_index_agrees_with_simpleitk():
    grid = an_oblique_left_handed_grid()
    image = sitk.Image(grid.size, sitk.sitkUInt8)
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection(grid.direction.ravel().tolist())
    image.SetOrigin(grid.world_from_index[:3, 3].tolist())
    for index in [(0.0, 0.0, 0.0), (3.5, 2.0, -1.25), (10.0, 16.0, 4.0)]:
        expected = image.TransformContinuousIndexToPhysicalPoint(index)
        np.testing.assert_allclose(grid.world(np.array([index]))[0], expected, atol=1e-10)


def test_index_undoes_world():
    grid = an_oblique_left_handed_grid()
    index = np.random.default_rng(1).uniform(-5, 20, (50, 3))
    np.testing.assert_allclose(grid.index(grid.world(index)), index, atol=1e-10)


def test_lattice_runs_through_the_voxels_in_array_order():
    grid = an_oblique_left_handed_grid()
    array = np.arange(np.prod(grid.size)).reshape(grid.shape)
    index = np.rint(grid.index(grid.lattice())).astype(int)
    np.testing.assert_array_equal(array[index[:, 2], index[:, 1], index[:, 0]], array.ravel())


@pytest.mark.parametrize("step", [1, 2, 3, 7, 32])
def test_a_coarsened_grid_encloses_every_voxel_edge(step):
    grid = an_oblique_left_handed_grid()
    coarse = grid.coarsened(step)
    index = coarse.index(grid.corners())
    assert (index > -1e-9).all()
    assert (index < np.array(coarse.size) - 1 + 1e-9).all()
    np.testing.assert_allclose(coarse.spacing, step * grid.spacing)


def test_a_coarsened_picture_stays_one_slice():
    coarse = Grid.of_picture(100, 60).coarsened(8)
    assert coarse.size[2] == 1
    assert coarse.world_from_index[2, 3] == 0


def test_contains_ends_at_the_outer_voxel_edges():
    inside = Grid.of_picture(10, 5).contains(
        np.array([[-0.5, 0, 0], [9.49, 4.49, 0], [-0.51, 0, 0], [3, 4.6, 0], [3, 3, 0.6]])
    )
    assert inside.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((4, 4)),
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.full((4, 4), np.nan),
        np.diag([1e9, 1.0, 1.0, 1.0]),
        np.eye(3),
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
        np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1.0]]),
    ],
)
def test_a_matrix_that_is_no_geometry_is_refused(matrix):
    with pytest.raises(GeometryError, match="matrix"):
        Grid((4, 4, 4), matrix)


@pytest.mark.parametrize("size", [(0, 4, 4), (4, 4), (4, 4, -1), (4, 4, 10**6)])
def test_a_size_that_is_no_grid_is_refused(size):
    with pytest.raises(GeometryError, match="size"):
        Grid(size, np.eye(4))


def test_a_grid_cannot_be_changed_by_its_caller():
    matrix = np.eye(4)
    grid = Grid((2, 2, 2), matrix)
    matrix[0, 0] = 5
    assert grid.world_from_index[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.world_from_index[0, 0] = 5


def test_an_image_must_fit_its_grid():
    with pytest.raises(GeometryError):
        Image(np.zeros((1, 5, 5, 4)), Grid((5, 5, 5), np.eye(4)))
    with pytest.raises(InputError):
        Image(np.zeros((5, 5, 5)), Grid((5, 5, 5), np.eye(4)))
    with pytest.raises(InputError):
        Image(np.zeros((1, 5, 5, 5), complex), Grid((5, 5, 5), np.eye(4)))


def test_grey_replaces_what_is_not_finite():
    array = np.array([1.0, np.nan, np.inf, -np.inf]).reshape(1, 1, 1, 4)
    assert Image(array, Grid.of_picture(4, 1)).grey().ravel().tolist() == [1, 0, 0, 0]
