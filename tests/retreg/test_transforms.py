"""Transforms and resampling against SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import GeometryError, InputError
from retreg.fitting import fit_tps
from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField, as_field

RANDOM = np.random.default_rng(4)


def a_matrix(shift=(3.3, -4.2, 2.1)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = [[0.9, -0.12, 0.05], [0.21, 0.95, 0.1], [-0.07, 0.02, 1.05]]
    matrix[:3, 3] = shift
    return matrix


def an_oblique_grid(size=(24, 20, 16)) -> Grid:
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]) @ np.diag(
        [-1.3, 1.1, 2.0]
    )
    matrix[:3, 3] = [20.0, -15, 7]
    return Grid(size, matrix)


def sitk_image(array: np.ndarray, grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection(grid.direction.ravel().tolist())
    image.SetOrigin(grid.world_from_index[:3, 3].tolist())
    return image


def sitk_affine(matrix: np.ndarray) -> sitk.AffineTransform:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel())
    transform.SetTranslation(matrix[:3, 3])
    return transform


def test_an_affine_and_its_inverse_agree_with_simpleitk():
    points = RANDOM.uniform(-100, 100, (20, 3))
    oracle = sitk_affine(a_matrix())
    affine = Affine(a_matrix())
    expected = [oracle.TransformPoint(point) for point in points]
    np.testing.assert_allclose(affine(points), expected, atol=1e-10)
    np.testing.assert_allclose(affine.inverse(affine(points)), points, atol=1e-10)


def test_a_field_agrees_with_simpleitk_inside_its_grid():
    grid = an_oblique_grid()
    vectors = RANDOM.normal(0, 2, (3, *grid.shape))
    image = sitk.GetImageFromArray(np.moveaxis(vectors, 0, -1), isVector=True)
    image.CopyInformation(sitk_image(vectors[0], grid))
    oracle = sitk.DisplacementFieldTransform(image)
    points = grid.world(RANDOM.uniform(0, 1, (200, 3)) * (np.array(grid.size) - 1.001))
    expected = [oracle.TransformPoint(point) for point in points]
    np.testing.assert_allclose(DisplacementField(vectors, grid)(points), expected, atol=1e-9)


def test_the_displacement_at_the_edge_continues_outside():
    field = DisplacementField(np.arange(12.0).reshape(3, 1, 2, 2), Grid.of_picture(2, 2))
    moved = field(np.array([[-10.0, -10, 0], [99, 99, 0]])) - [[-10, -10, 0], [99, 99, 0]]
    np.testing.assert_allclose(moved, [[0, 4, 8], [3, 7, 11]])


def test_a_chain_applies_its_first_transform_first():
    first, second = Affine(a_matrix()), Affine(a_matrix((0, 0, 50)))
    points = RANDOM.uniform(-10, 10, (5, 3))
    both = Affine(second.moving_from_fixed @ first.moving_from_fixed)
    np.testing.assert_allclose(Chain((first, second))(points), both(points), atol=1e-12)


def test_a_sampled_field_stays_within_its_tolerance():
    grid = an_oblique_grid()
    corners = grid.world(np.array([[0, 0, 0], [23, 19, 15]]))
    fixed = RANDOM.uniform(corners.min(axis=0), corners.max(axis=0), (30, 3))
    spline = fit_tps(fixed, fixed + RANDOM.normal(0, 1.5, fixed.shape), smoothing=0.5)
    field = as_field(spline, grid)
    points = grid.lattice()
    error = np.linalg.norm(field(points) - spline(points), axis=1)
    assert error.mean() < 0.01
    assert error.max() < 0.1


def test_an_affine_needs_only_the_coarsest_field():
    field = as_field(Affine(a_matrix()), an_oblique_grid((200, 180, 160)))
    assert max(field.grid.size) <= 8


def test_values_that_are_no_transform_are_refused():
    with pytest.raises(GeometryError, match="invertible"):
        Affine(np.diag([1.0, 1, 0, 1]))
    with pytest.raises(InputError, match="shape"):
        DisplacementField(np.zeros((3, 4, 4, 4)), Grid.of_picture(4, 4))
    with pytest.raises(GeometryError, match="finite"):
        DisplacementField(np.full((3, 1, 4, 4), np.nan), Grid.of_picture(4, 4))


@pytest.mark.parametrize("nearest", [False, True])
def test_resampling_a_volume_agrees_with_simpleitk(nearest):
    moving_grid, grid = an_oblique_grid(), Grid((30, 31, 29), np.diag([1.1, 0.9, 1.3, 1.0]))
    array = RANDOM.uniform(-100, 100, moving_grid.shape)
    transform = Affine(a_matrix((7.77, -3.33, 1.23)))
    result = resample(Image(array[None], moving_grid), transform, grid, nearest, fill=0).array[0]
    expected = sitk.GetArrayFromImage(
        sitk.Resample(
            sitk_image(array, moving_grid),
            sitk_image(np.zeros(grid.shape), grid),
            sitk_affine(transform.moving_from_fixed),
            sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
            0.0,
        )
    )
    assert (expected != 0).sum() > 1000
    # Float32 weights: two values in a thousand may round to another neighbour or edge.
    wrong = np.abs(result - expected) > (0 if nearest else 0.01)
    assert wrong.mean() < 0.002


def test_resampling_a_picture_keeps_its_colour_and_type():
    array = RANDOM.integers(0, 255, (3, 1, 40, 50), np.uint8)
    grid = Grid.of_picture(50, 40)
    shift = np.eye(4)
    shift[:2, 3] = [3, -2]
    result = resample(Image(array, grid), Affine(shift), grid).array
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[:, :, 2:, :-3], array[:, :, :-2, 3:])
    assert (result[:, :, :2] == 0).all()
    assert (result[:, :, :, -3:] == 0).all()


def test_resampling_through_a_field_agrees_with_simpleitk():
    grid = Grid.of_picture(60, 50)
    array = RANDOM.uniform(0, 1, (1, 1, 50, 60))
    fixed = np.column_stack([RANDOM.uniform(0, 50, (20, 2)), np.zeros(20)])
    moved = fixed + np.column_stack([RANDOM.normal(0, 2, (20, 2)), np.zeros(20)])
    spline = fit_tps(fixed, moved, smoothing=0.2)
    result = resample(Image(array, grid), spline, grid).array[0, 0]
    dense = (spline(grid.lattice()) - grid.lattice())[:, :2].reshape(50, 60, 2)
    oracle = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(dense, isVector=True))
    image = sitk.GetImageFromArray(array[0, 0])
    expected = sitk.GetArrayFromImage(sitk.Resample(image, image, oracle, sitk.sitkLinear, 0.0))
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(result - expected)[inner].max() < 0.02
