"""Closed forms against independent oracles: SciPy, VTK, and least squares written out."""

from __future__ import annotations

import numpy as np
import pytest
import vtk
from scipy.interpolate import RBFInterpolator
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from retreg.errors import DegeneratePointsError, InputError, OptionError
from retreg.fitting import fit, fit_affine, fit_rigid, fit_similarity, fit_tps

RANDOM = np.random.default_rng(20)


def a_rotation(degrees: float, axis=(1.0, 2.0, -0.5)) -> np.ndarray:
    axis = np.array(axis) / np.linalg.norm(axis)
    return Rotation.from_rotvec(np.radians(degrees) * axis).as_matrix()


def noisy_pairs(n: int = 40, noise: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fixed = RANDOM.uniform(-80, 80, (n, 3)) + [300, -50, 20]
    moving = fixed @ a_rotation(130).T * 1.1 + [5, 6, 7] + RANDOM.normal(0, noise, (n, 3))
    return fixed, moving, RANDOM.uniform(0.2, 3, n)


def in_plane(points: np.ndarray, basis: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(n, 2) plane coordinates to (n, 3) world points."""
    return points @ basis[:, :2].T + origin


def cost(matrix: np.ndarray, fixed, moving, weights) -> float:
    residual = fixed @ matrix[:3, :3].T + matrix[:3, 3] - moving
    return float((weights * (residual**2).sum(axis=1)).sum())


def test_rigid_agrees_with_scipy_for_weighted_points():
    fixed, moving, weights = noisy_pairs()
    result = fit_rigid(fixed, moving, weights).moving_from_fixed
    centre_f = np.average(fixed, axis=0, weights=weights)
    centre_m = np.average(moving, axis=0, weights=weights)
    expected, _ = Rotation.align_vectors(moving - centre_m, fixed - centre_f, weights=weights)
    np.testing.assert_allclose(result[:3, :3], expected.as_matrix(), atol=1e-9)
    np.testing.assert_allclose(result[:3, 3], centre_m - expected.as_matrix() @ centre_f, atol=1e-6)


def test_similarity_is_a_minimum_of_the_weighted_cost():
    fixed, moving, weights = noisy_pairs()
    result = fit_similarity(fixed, moving, weights).moving_from_fixed

    def at(p: np.ndarray) -> float:
        matrix = np.eye(4)
        matrix[:3, :3] = np.exp(p[6]) * Rotation.from_rotvec(p[:3]).as_matrix()
        matrix[:3, 3] = p[3:6] * 100
        return cost(matrix, fixed, moving, weights)

    scale = np.cbrt(np.linalg.det(result[:3, :3]))
    start = Rotation.from_matrix(result[:3, :3] / scale).as_rotvec()
    start = np.array([*start, *(result[:3, 3] / 100), np.log(scale)])
    found = minimize(at, start + 0.02, method="BFGS", options={"gtol": 1e-9})
    assert cost(result, fixed, moving, weights) <= found.fun + 1e-6
    assert cost(result, fixed, moving, weights) == pytest.approx(found.fun, rel=1e-6)


def test_affine_agrees_with_the_normal_equations():
    fixed, moving, weights = noisy_pairs()
    result = fit_affine(fixed, moving, weights).moving_from_fixed
    homogeneous = np.column_stack([fixed, np.ones(len(fixed))])
    normal = homogeneous.T @ (weights[:, None] * homogeneous)
    expected = np.linalg.solve(normal, homogeneous.T @ (weights[:, None] * moving)).T
    np.testing.assert_allclose(result[:3], expected, atol=1e-6)


def test_weights_are_not_squared_and_only_their_ratios_count():
    fixed, moving, weights = noisy_pairs()
    doubled = np.vstack([fixed, fixed[:1]]), np.vstack([moving, moving[:1]])
    twice = np.ones(len(fixed))
    twice[0] = 2
    for fitted in (fit_rigid, fit_similarity, fit_affine):
        np.testing.assert_allclose(
            fitted(*doubled).moving_from_fixed,
            fitted(fixed, moving, twice).moving_from_fixed,
            atol=1e-9,
        )
        np.testing.assert_allclose(
            fitted(fixed, moving, 17 * weights).moving_from_fixed,
            fitted(fixed, moving, weights).moving_from_fixed,
            atol=1e-9,
        )


def test_points_of_weight_zero_do_not_count():
    fixed, moving, weights = noisy_pairs()
    weights[:5] = 0
    spoilt = moving.copy()
    spoilt[:5] += 1000
    np.testing.assert_allclose(
        fit_affine(fixed, spoilt, weights).moving_from_fixed,
        fit_affine(fixed[5:], moving[5:], weights[5:]).moving_from_fixed,
        atol=1e-9,
    )


@pytest.mark.parametrize("degrees", [0, 30, 90, 150, 179.9, 180])
@pytest.mark.parametrize("flat", [False, True])
def test_every_family_recovers_an_exact_rotation(degrees, flat):
    axis = (0, 0, 1) if flat else (1, 2, -0.5)
    fixed = RANDOM.uniform(-50, 50, (12, 3)) * [1, 1, 0 if flat else 1]
    rotation = a_rotation(degrees, axis)
    moving = fixed @ rotation.T + [3, -4, 0]
    for family in ("rigid", "similarity", "affine", "tps"):
        probe = RANDOM.uniform(-60, 60, (30, 3)) * [1, 1, 0 if flat else 1]
        expected = probe @ rotation.T + [3, -4, 0]
        np.testing.assert_allclose(fit(family, fixed, moving)(probe), expected, atol=1e-8)


def test_rigid_never_reflects_a_volume():
    fixed = RANDOM.uniform(-50, 50, (12, 3))
    matrix = fit_rigid(fixed, fixed * [-1, 1, 1]).moving_from_fixed
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_rigid_never_mirrors_a_picture():
    fixed = RANDOM.uniform(-50, 50, (12, 3)) * [1, 1, 0]
    matrix = fit_rigid(fixed, fixed * [-1, 1, 1]).moving_from_fixed
    assert np.linalg.det(matrix[:2, :2]) == pytest.approx(1)
    np.testing.assert_allclose(matrix[2], [0, 0, 1, 0], atol=1e-12)


def test_a_mirrored_picture_is_no_similarity():
    fixed = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [10, 10.0, 0]])
    with pytest.raises(DegeneratePointsError, match="mirrored"):
        fit_similarity(fixed, fixed * [-1, 1, 1] * [1, 1, 1] - [0, 0, 0])


def test_three_points_of_a_volume_determine_a_rigid_transform():
    fixed = RANDOM.uniform(-50, 50, (3, 3))
    rotation = a_rotation(140)
    matrix = fit_rigid(fixed, fixed @ rotation.T).moving_from_fixed
    np.testing.assert_allclose(matrix[:3, :3], rotation, atol=1e-9)


def test_oblique_planes_are_fitted_like_flat_ones():
    basis_f, basis_m = a_rotation(50), a_rotation(65, (1, 0.2, 0.4))
    flat_f = RANDOM.uniform(-40, 40, (25, 2))
    flat_m = flat_f @ np.array([[1.1, 0.2], [-0.1, 0.9]]) + RANDOM.normal(0, 1, (25, 2))
    origin_f, origin_m = np.array([10.0, 20, 30]), np.array([-5.0, 0, 12])
    fixed = in_plane(flat_f, basis_f, origin_f)
    moving = in_plane(flat_m, basis_m, origin_m)
    pad = np.zeros((25, 1))
    flat = fit_affine(np.hstack([flat_f, pad]), np.hstack([flat_m, pad]))
    np.testing.assert_allclose(
        fit_affine(fixed, moving)(fixed),
        in_plane(flat(np.hstack([flat_f, pad]))[:, :2], basis_m, origin_m),
        atol=1e-9,
    )
    spline = fit_tps(fixed, moving, smoothing=0.1)
    flat_spline = fit_tps(np.hstack([flat_f, pad]), np.hstack([flat_m, pad]), smoothing=0.1)
    probe = RANDOM.uniform(-50, 50, (40, 2))
    np.testing.assert_allclose(
        spline(in_plane(probe, basis_f, origin_f)),
        in_plane(flat_spline(np.hstack([probe, np.zeros((40, 1))]))[:, :2], basis_m, origin_m),
        atol=1e-8,
    )


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.01, 1.0])
@pytest.mark.parametrize(
    ("kernel", "scipy_name"), [("r", "linear"), ("r2logr", "thin_plate_spline")]
)
def test_the_spline_agrees_with_scipy(axes, smoothing, kernel, scipy_name):
    fixed, moving, weights = noisy_pairs(60)
    fixed[:, axes:], moving[:, axes:] = 0, 0
    length = np.sqrt(((fixed - fixed.mean(axis=0)) ** 2).sum(axis=1).mean())
    penalty = smoothing * length ** (1 if kernel == "r" else 2) / (weights / weights.mean())
    oracle = RBFInterpolator(
        fixed[:, :axes], moving[:, :axes], kernel=scipy_name, degree=1, smoothing=penalty
    )
    probe = RANDOM.uniform(-100, 400, (200, 3))
    probe[:, axes:] = 0
    result = fit_tps(fixed, moving, weights, smoothing, kernel)(probe)
    np.testing.assert_allclose(result[:, :axes], oracle(probe[:, :axes]), atol=1e-6)
    np.testing.assert_allclose(result[:, axes:], 0, atol=1e-9)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("kernel", ["r", "r2logr"])
def test_the_interpolating_spline_agrees_with_vtk(axes, kernel):
    fixed, moving, _ = noisy_pairs(30)
    fixed[:, axes:], moving[:, axes:] = 0, 0
    oracle = vtk.vtkThinPlateSplineTransform()
    for points, setter in ((fixed, oracle.SetSourceLandmarks), (moving, oracle.SetTargetLandmarks)):
        landmarks = vtk.vtkPoints()
        landmarks.SetDataTypeToDouble()
        for point in points:
            landmarks.InsertNextPoint(point)
        setter(landmarks)
    if kernel == "r":
        oracle.SetBasisToR()
    else:
        oracle.SetBasisToR2LogR()
    probe = RANDOM.uniform(-100, 400, (100, 3))
    probe[:, axes:] = 0
    expected = np.array([oracle.TransformDoublePoint(point) for point in probe])
    np.testing.assert_allclose(fit_tps(fixed, moving, kernel=kernel)(probe), expected, atol=1e-6)


def test_smoothing_means_the_same_at_every_image_size():
    fixed, moving, weights = noisy_pairs()
    small = fit_tps(fixed, moving, weights, 0.3)(fixed)
    large = fit_tps(100 * fixed, 100 * moving, weights, 0.3)(100 * fixed)
    np.testing.assert_allclose(large, 100 * small, rtol=1e-9)


def test_infinite_smoothing_is_exactly_the_affine_fit():
    fixed, moving, weights = noisy_pairs()
    probe = RANDOM.uniform(-100, 100, (50, 3))
    spline = fit_tps(fixed, moving, weights, np.inf)
    affine = fit_affine(fixed, moving, weights)
    np.testing.assert_array_equal(spline(probe), affine(probe))
    nearly = fit_tps(fixed, moving, weights, 1e9)
    np.testing.assert_allclose(nearly(probe), affine(probe), atol=1e-5)


def test_weighting_pulls_the_spline_to_the_trusted_points():
    fixed, moving, _ = noisy_pairs(noise=5)
    weights = np.ones(len(fixed))
    weights[0] = 1000
    spline = fit_tps(fixed, moving, weights, 0.5)
    errors = np.linalg.norm(spline(fixed) - moving, axis=1)
    assert errors[0] < 0.05 * np.median(errors)


@pytest.mark.parametrize("family", ["rigid", "similarity", "affine", "tps"])
@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((0, 3)), "at least 3"),
        (np.array([[0, 0, 0], [1, 2, 3.0]]), "at least 3"),
        (np.tile([[1.0, 2, 3]], (8, 1)), "coincide"),
        (np.outer(np.arange(9.0), [1, 2, 3]) + [100, 200, 300], "one line"),
    ],
)
def test_points_that_determine_nothing_are_refused(family, points, words):
    spread = RANDOM.uniform(-50, 50, points.shape)
    with pytest.raises(DegeneratePointsError, match=words):
        fit(family, points, spread)
    with pytest.raises(DegeneratePointsError, match=words):
        fit(family, spread, points)


def test_an_affine_that_would_flatten_a_volume_is_refused():
    fixed = RANDOM.uniform(-50, 50, (20, 3))
    with pytest.raises(DegeneratePointsError, match="flattens"):
        fit_affine(fixed, fixed * [1, 1, 0])


def test_coincident_points_need_smoothing():
    fixed, moving, _ = noisy_pairs()
    fixed[1] = fixed[0]
    with pytest.raises(DegeneratePointsError, match="coincide"):
        fit_tps(fixed, moving)
    result = fit_tps(fixed, moving, smoothing=0.1)(fixed)
    assert np.isfinite(result).all()


@pytest.mark.parametrize(
    ("fixed", "moving", "weights"),
    [
        (np.zeros((5, 2)), np.zeros((5, 2)), None),
        (np.zeros((5, 3)), np.zeros((4, 3)), None),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), None),
        (np.eye(3), np.eye(3), np.ones(4)),
        (np.eye(3), np.eye(3), np.array([1, 1, -1.0])),
        (np.eye(3), np.eye(3), np.array([1, 1, np.inf])),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(fixed, moving, weights):
    with pytest.raises(InputError):
        fit_affine(fixed, moving, weights)


def test_unknown_families_and_bad_smoothing_are_refused():
    fixed, moving, _ = noisy_pairs()
    with pytest.raises(OptionError, match="rigid, similarity, affine, tps"):
        fit("projective", fixed, moving)
    for smoothing in (-1.0, np.nan):
        with pytest.raises(InputError, match="smoothing"):
            fit_tps(fixed, moving, smoothing=smoothing)
    with pytest.raises(InputError, match="kernel"):
        fit_tps(fixed, moving, kernel="r3")
