"""The numerical inverse: every point comes back, and where it cannot the residual says so."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.geometry import Grid
from retreg.inverse import Inverse, inverse_of, largest_residual_mm
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline

RNG = np.random.default_rng(3)
GRID = Grid((20, 22, 18), np.diag([2.0, 2, 3, 1]))
POINTS = GRID.world(RNG.uniform(1, 16, (200, 3)))


def a_field(strength_mm=1.0, grid=GRID):
    coarse = Grid((6, 6, 6), np.diag([8.0, 9, 11, 1]))
    rough = DisplacementField(RNG.normal(scale=strength_mm, size=(3, 6, 6, 6)), coarse)
    return DisplacementField.sampled(rough, grid)


def a_turn(degrees):
    a = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    matrix[:3, 3] = (30, -10, 4)
    return Affine(matrix)


def a_spline():
    fixed = GRID.world(RNG.uniform(0, 17, (12, 3)))
    return ThinPlateSpline(fixed, a_turn(170)(fixed) + RNG.normal(scale=1.0, size=(12, 3)))


@pytest.mark.parametrize("transform", [
    a_turn(130), a_field(), a_spline(), Chain((a_turn(140), a_field(), a_turn(-20))),
    Chain((a_field(0.5), a_spline())),
], ids=["affine", "field", "spline", "chain", "chain of two curved ones"])  # fmt: skip
def test_there_and_back_is_exact(transform):
    inverse = inverse_of(transform)
    np.testing.assert_allclose(inverse(transform(POINTS)), POINTS, atol=1e-4)
    np.testing.assert_allclose(transform(inverse(POINTS)), POINTS, atol=1e-5)


def test_the_inverse_of_a_field_is_that_of_itk():
    field = a_field(0.6)
    vectors = sitk.GetImageFromArray(np.moveaxis(field.vectors_mm, 0, -1), isVector=True)
    vectors.SetSpacing((2, 2, 3))
    filtered = sitk.InvertDisplacementField(
        vectors, maximumNumberOfIterations=50, meanErrorToleranceThreshold=1e-4,
        maxErrorToleranceThreshold=1e-3,
    )
    oracle = sitk.DisplacementFieldTransform(filtered)
    inner = GRID.world(RNG.uniform(5, 12, (50, 3)))
    expected = [oracle.TransformPoint(point.tolist()) for point in inner]
    assert np.linalg.norm(inverse_of(field)(inner) - expected, axis=1).mean() < 0.05


def everything_to_a_plane(points):
    return points * [0, 1, 1]


def test_the_residual_says_what_cannot_be_inverted():
    residual = Inverse(everything_to_a_plane).residual(np.array([[5.0, 7, 0], [0, 3, 1]]))
    np.testing.assert_allclose(residual, [5, 0], atol=1e-4)
    unreached = Chain((inverse_of(a_field()), Inverse(everything_to_a_plane)))
    assert largest_residual_mm(unreached, POINTS) > 5
    assert Inverse(a_field()).residual(POINTS).max() < 1e-5


def test_no_points_are_no_points():
    assert inverse_of(a_field())(np.zeros((0, 3))).shape == (0, 3)


def test_the_inverse_of_the_inverse_is_the_transform():
    field = a_field()
    assert inverse_of(inverse_of(field)) is field
