"""A local correction: exact at its points, nothing beyond its reach, and never a fold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.interpolate import Rbf

from retreg import Affine, Chain, DisplacementField, Grid, ThinPlateSpline
from retreg.errors import DegeneratePointsError, InputError
from retreg.local_correction import LocalCorrection, corrected, unfolded_correction

PICTURE = Grid.of_picture(700, 600)


def places(count: int, seed: int, flat: bool = True) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(100, 500, (count, 3))
    return points * (1, 1, 0) if flat else points


def waves() -> DisplacementField:
    """A deformable result: a smooth field on a lattice of 16 px."""
    lattice = PICTURE.coarsened(16)
    x = lattice.lattice()
    vectors = np.stack([8 * np.sin(x[:, 1] / 70), 6 * np.cos(x[:, 0] / 60), 0 * x[:, 0]])
    return DisplacementField(vectors.reshape(3, *lattice.shape), lattice)


def quadratic() -> DisplacementField:
    lattice = PICTURE.coarsened(8)
    x = lattice.lattice()
    vectors = np.stack([2e-5 * x[:, 0] * x[:, 1], -3e-5 * x[:, 0] ** 2, 0 * x[:, 0]])
    return DisplacementField(vectors.reshape(3, *lattice.shape), lattice)


TURN = np.array([[0.0, -1.2, 0, 30], [1.2, 0, 0, -9], [0, 0, 1, 0], [0, 0, 0, 1]])
BENT = places(9, 5)
BENDS = np.random.default_rng(1).normal(0, 4, (9, 3)) * (1, 1, 0)
RESULTS = {
    "affine": Affine(TURN),
    "deformable": waves(),
    "quadratic": quadratic(),
    "affine after a field": Chain((waves(), Affine(TURN))),
    "spline": ThinPlateSpline(BENT, BENT + BENDS),
}


@pytest.mark.parametrize("flat", [True, False], ids=["picture", "volume"])
def test_the_displacement_is_that_of_scipys_radial_functions(flat: bool) -> None:
    points, shifts = places(7, 0, flat), places(7, 1, flat) / 50
    correction = LocalCorrection(points, shifts, 180.0)
    probes = places(50, 2, flat)

    def kernel(_self: object, r: np.ndarray) -> np.ndarray:
        return np.where(r < 180, (1 - r / 180) ** 4 * (4 * r / 180 + 1), 0)

    for axis in range(3):
        oracle = Rbf(*points.T, shifts[:, axis], function=kernel, smooth=0)
        moved = correction(probes)[:, axis] - probes[:, axis]
        np.testing.assert_allclose(moved, oracle(*probes.T), atol=1e-9)


def test_one_point_moves_its_surroundings_as_the_closed_form_says() -> None:
    correction = LocalCorrection(np.array([[50.0, 60, 0]]), np.array([[5.0, 0, 0]]), 100.0)
    at_half = correction(np.array([[50.0, 110, 0]]))[0]
    np.testing.assert_allclose(at_half, (50 + 5 * 0.5**4 * 3, 110, 0), atol=1e-12)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("count", [1, 6])
def test_points_end_where_they_were_put_and_what_is_far_stays(name: str, count: int) -> None:
    result = RESULTS[name]
    fixed = places(count, 3)
    turns = np.random.default_rng(4).uniform(0, 2 * np.pi, count)
    moving = result(fixed) + 5 * np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
    edited = corrected(result, fixed, moving, 120.0)
    np.testing.assert_allclose(edited(fixed), moving, atol=1e-3)
    probes = PICTURE.lattice(23)
    away = np.linalg.norm(probes[:, None] - fixed, axis=2).min(axis=1)
    reach = edited.transforms[0].reach_mm
    far, near = probes[away > reach], probes[away < 40]
    np.testing.assert_array_equal(edited(far), result(far))
    assert np.abs(edited(near) - result(near)).max() > 1


def test_a_drag_of_5_px_on_a_deformable_result_moves_nothing_150_px_away() -> None:
    result, fixed = waves(), np.array([[350.0, 300, 0]])
    edited = corrected(result, fixed, result(fixed) + (3, -4, 0), 100.0)
    probes = PICTURE.lattice(7)
    far = probes[np.linalg.norm(probes - fixed, axis=1) > 150]
    assert np.abs(edited(far) - result(far)).max() <= 0.1
    assert np.linalg.norm(edited(fixed) - result(fixed) - (3, -4, 0)) <= 0.1


@pytest.mark.parametrize("flat", [True, False], ids=["picture", "volume"])
@pytest.mark.parametrize(("count", "shift", "reach"), [(1, 60, 20), (8, 25, 30), (15, 10, 15)])
def test_nothing_folds_since_the_reach_is_made_wider(
    count: int, shift: float, reach: float, flat: bool
) -> None:
    points = places(count, 7, flat)
    shifts = np.random.default_rng(8).uniform(-1, 1, points.shape) * shift * (1, 1, not flat)
    correction = unfolded_correction(points, shifts, reach)
    assert correction.reach_mm > reach
    step = 0.02 * correction.reach_mm
    offsets = np.array(list(itertools.product(np.arange(-40, 41, 4), repeat=3))) * step
    for point in points:
        assert correction.determinants(point + offsets).min() > 0
    np.testing.assert_allclose(correction(points), points + shifts, atol=1e-9)


def test_a_wide_enough_reach_is_kept() -> None:
    correction = unfolded_correction(places(2, 1), np.ones((2, 3)), 90.0)
    assert correction.reach_mm == 90.0


def test_the_determinants_are_those_of_finite_differences() -> None:
    correction = LocalCorrection(places(5, 0, False), places(5, 1, False) / 30, 200.0)
    probes, h = places(20, 2, False), 1e-4
    columns = [correction(probes + h * e) - correction(probes - h * e) for e in np.eye(3)]
    expected = np.linalg.det(np.stack(columns, axis=2) / (2 * h))
    np.testing.assert_allclose(correction.determinants(probes), expected, atol=1e-6)


def test_neighbours_that_change_places_are_refused_in_a_sentence() -> None:
    points = np.array([[100.0, 100, 0], [104.0, 100, 0]])
    with pytest.raises(InputError, match="would fold between them; move one of them back"):
        corrected(Affine.identity(), points, points[::-1], 50.0)


def test_two_points_at_one_place_are_refused_in_a_sentence() -> None:
    points = np.array([[10.0, 10, 0], [10.0, 10, 0], [90, 90, 0]])
    with pytest.raises(DegeneratePointsError, match="lie at the same place; delete one"):
        LocalCorrection(points, np.ones((3, 3)), 50.0)


def test_a_place_that_the_result_does_not_reach_is_refused_in_a_sentence() -> None:
    flat = Chain((Affine.identity(), lambda points: np.tanh(points / 100)))
    with pytest.raises(InputError, match="takes no point of the fixed image"):
        corrected(flat, np.zeros((1, 3)), np.array([[5.0, 0, 0]]), 50.0)
