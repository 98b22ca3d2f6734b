"""Maps of a registration against formulas."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.maps import (
    beltrami_coefficient,
    jacobian_determinant,
    map_lattice,
    map_names,
    registration_map,
)
from retreg.transforms import Affine, DisplacementField

PICTURE = Grid.of_picture(40, 30)
OBLIQUE = Grid(
    (20, 16, 12),
    np.array([[0, -0.8, 0.9, 5], [1.2, 0, 0, -3], [0, 0.6, 1.2, 7], [0, 0, 0, 1.0]]),
)


def affine(rng: np.random.Generator, volume: bool = True) -> Affine:
    matrix = np.eye(4)
    n = 3 if volume else 2
    matrix[:n, :n] += rng.uniform(-0.3, 0.3, (n, n))
    matrix[:n, 3] = rng.uniform(-9, 9, n)
    return Affine(matrix)


def quadratic(points: np.ndarray) -> np.ndarray:
    x, y, z = points.T
    return np.column_stack([x + 0.01 * x * y, y - 0.004 * x * x + 0.002 * y * y, z + 0.003 * z * x])


def quadratic_determinant(points: np.ndarray, dimensions: int) -> np.ndarray:
    x, y, z = points.T
    rows = [
        [1 + 0.01 * y, 0.01 * x, 0 * x],
        [-0.008 * x, 1 + 0.004 * y, 0 * x],
        [0.003 * z, 0 * x, 1 + 0.003 * x],
    ]
    whole = np.moveaxis(np.array(rows), 2, 0)
    return np.linalg.det(whole[:, :dimensions, :dimensions])


@pytest.mark.parametrize("grid", [PICTURE, OBLIQUE])
def test_an_affine_changes_sizes_by_its_determinant_everywhere(grid):
    transform = affine(np.random.default_rng(1), not grid.is_plane)
    found = jacobian_determinant(transform, grid)
    assert found.shape == grid.shape
    np.testing.assert_allclose(found, np.linalg.det(transform.moving_from_fixed[:3, :3]))


@pytest.mark.parametrize("grid", [PICTURE, OBLIQUE])
def test_the_determinant_of_a_quadratic_map_is_exact_up_to_the_rim(grid):
    expected = quadratic_determinant(grid.lattice(), 2 if grid.is_plane else 3)
    found = jacobian_determinant(quadratic, grid)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-9)


def test_a_left_handed_grid_does_not_count_as_folded():
    mirrored = Grid((5, 6, 7), np.diag([-1.0, 1, 2, 1]))
    np.testing.assert_allclose(jacobian_determinant(Affine.identity(), mirrored), 1)
    flipped = Affine(np.diag([-1.0, 1, 1, 1]))
    np.testing.assert_allclose(jacobian_determinant(flipped, mirrored), -1)


def test_a_fold_in_a_picture_is_negative_and_only_there():
    def folded(points: np.ndarray) -> np.ndarray:
        moved = points.copy()
        moved[:, 0] += 6 * np.exp(-np.square(points[:, 0] - 20) / 8)
        return moved

    x = np.arange(40)
    slope = 1 - 6 * (x - 20) / 4 * np.exp(-np.square(x - 20) / 8)
    found = jacobian_determinant(folded, PICTURE)[0]
    modulus = np.abs(beltrami_coefficient(folded, PICTURE))
    sure = np.abs(slope) > 0.5
    assert ((found < 0) == (slope < 0))[:, sure].all()
    assert ((modulus > 1) == (found < 0)).all()
    assert (found < 0).any()


def test_the_beltrami_coefficient_of_an_affine_is_that_of_its_complex_form():
    """f(z) = a z + b conj(z) has mu = b / a."""
    a, b = 0.9 + 0.4j, -0.15 + 0.2j

    def mapped(points: np.ndarray) -> np.ndarray:
        z = points[:, 0] + 1j * points[:, 1]
        w = a * z + b * z.conj() + (3 - 2j)
        return np.column_stack([w.real, w.imag, points[:, 2]])

    found = beltrami_coefficient(mapped, PICTURE)
    assert found.shape == (30, 40)
    np.testing.assert_allclose(np.abs(found), abs(b / a), atol=1e-12)
    np.testing.assert_allclose(np.diff(found.ravel()), 0, atol=1e-12)


def test_a_shear_and_a_stretch_have_their_known_coefficients():
    shear, stretch = np.eye(4), np.diag([3.0, 1, 1, 1])
    shear[0, 1] = 0.5
    np.testing.assert_allclose(
        np.abs(beltrami_coefficient(Affine(shear), PICTURE)), 0.5 / np.hypot(2, 0.5)
    )
    np.testing.assert_allclose(np.abs(beltrami_coefficient(Affine(stretch), PICTURE)), 0.5)


@pytest.mark.parametrize("power", [2, 3])
def test_conformal_maps_keep_all_angles(power):
    def conformal(points: np.ndarray) -> np.ndarray:
        w = (points[:, 0] + 60 + 1j * (points[:, 1] + 50)) ** power
        return np.column_stack([w.real, w.imag, 0 * w.real])

    modulus = np.abs(beltrami_coefficient(conformal, PICTURE))
    assert modulus.max() < (1e-9 if power == 2 else 1e-3)


def test_a_picture_may_lie_anywhere_before_and_after():
    """An oblique picture with oblong pixels, mirrored and turned into another plane: mu stays 0."""
    rng = np.random.default_rng(4)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([0.5, 2.0, 1.0])
    grid = Grid((20, 10, 1), matrix)
    moved = np.eye(4)
    moved[:3, :3] = 1.5 * np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for sign in (1, -1):
        similar = Affine(moved @ np.diag([sign, 1, 1, 1.0]))
        np.testing.assert_allclose(np.abs(beltrami_coefficient(similar, grid)), 0, atol=1e-12)
        np.testing.assert_allclose(jacobian_determinant(similar, grid), 1.5**2)


def test_the_error_is_the_distance_that_remains_after_there_and_back():
    forward = affine(np.random.default_rng(2))
    off = np.eye(4)
    off[:3, 3] = 1, 2, 2
    backward = Affine(off @ forward.inverse.moving_from_fixed)
    found = registration_map("error", forward, backward, OBLIQUE)
    assert found.array.dtype == np.float32
    assert found.array.shape == (1, *OBLIQUE.shape)
    np.testing.assert_allclose(found.array, 3, atol=1e-5)
    exact = registration_map("error", forward, forward.inverse, OBLIQUE)
    assert exact.array.max() < 1e-5


def test_the_displacement_is_the_length_of_the_vectors():
    vectors = np.random.default_rng(3).normal(size=(3, *OBLIQUE.shape))
    field = DisplacementField(vectors, OBLIQUE)
    found = registration_map("displacement", field, None, OBLIQUE)
    np.testing.assert_allclose(found.array[0], np.linalg.norm(vectors, axis=0), atol=1e-5)


def test_a_large_image_is_sampled_on_a_lattice_that_lies_in_its_middle():
    grid = Grid((250, 200, 101), OBLIQUE.world_from_index)
    lattice = map_lattice(grid)
    assert np.prod(lattice.size) <= 1_000_000
    assert lattice.size == (125, 100, 51)
    np.testing.assert_allclose(lattice.centre, grid.centre)
    np.testing.assert_allclose(lattice.spacing, 2 * grid.spacing)
    assert map_lattice(OBLIQUE).size == OBLIQUE.size
    plane = map_lattice(Grid.of_picture(3000, 2000))
    assert plane.is_plane
    assert plane.spacing[0] == 3


def test_what_cannot_be_made_is_refused_in_a_sentence():
    identity = Affine.identity()
    assert map_names(PICTURE, identity) == ("error", "displacement", "jacobian", "beltrami")
    assert map_names(OBLIQUE, None) == ("displacement", "jacobian")
    for name, grid, reason in (
        ("error", PICTURE, "needs a transform from moving to fixed"),
        ("beltrami", OBLIQUE, "exists for pictures only"),
        ("colour", PICTURE, "is not known"),
    ):
        with pytest.raises(InputError, match=reason):
            registration_map(name, identity, None, grid)
    with pytest.raises(InputError, match="volume was given"):
        beltrami_coefficient(identity, OBLIQUE)
