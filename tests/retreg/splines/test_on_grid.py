"""Thin-plate splines on large grids against exact evaluation; sweeps against single fits."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.interpolate import make_interp_spline

from retreg.errors import DegeneratePointsError, InputError
from retreg.fitting import fit_tps, fit_tps_sweep
from retreg.geometry import Grid
from retreg.splines.on_grid import SplineLattice
from retreg.splines.separable_interpolation import spline_lattice_grid, spline_weights
from retreg.splines.softened_kernels import Softened
from retreg.transforms import Affine, DisplacementField, ThinPlateSpline, as_field
from retreg.voxel_displacements import TOLERANCE_VOXELS, displacements, voxel_map


def a_spline(n=200, size=128, smoothing=0.01, seed=0, kernel="r", noise=1.0, planar=False):
    """Keypoints all over a cube, moved smoothly and by white noise (mm)."""
    random = np.random.default_rng(seed)
    fixed = random.uniform(0.1 * size, 0.9 * size, (n, 3)) * [1, 1, 0 if planar else 1]
    waves = 4 * np.sin(fixed @ random.normal(0, 4 / size, (3, 3)))
    moved = fixed + (waves + random.normal(0, noise, (n, 3))) * [1, 1, 0 if planar else 1]
    weights = random.uniform(0.3, 2, n)
    return fit_tps(fixed, moved, weights, smoothing, kernel)


def probes(spline: ThinPlateSpline, grid: Grid, n: int = 4000) -> np.ndarray:
    """Voxel indices (2n, 3), half of them close to control points."""
    random = np.random.default_rng(1)
    anywhere = random.uniform(0, 1, (n, 3)) * (np.array(grid.size) - 1)
    chosen = spline.fixed_points[random.integers(0, len(spline.fixed_points), n)]
    near = grid.index(chosen) + random.normal(0, 2, (n, 3))
    index = np.rint(np.concatenate([anywhere, near])).astype(int)
    return np.clip(index, 0, np.array(grid.size) - 1)


def errors(spline: ThinPlateSpline, lattice: SplineLattice, grid: Grid) -> np.ndarray:
    index = probes(spline, grid)
    points = grid.world(index)
    found = lattice.whole()[:, index[:, 2], index[:, 1], index[:, 0]].T
    return np.linalg.norm(found - (spline(points) - points), axis=1)


@pytest.mark.parametrize("kernel", ["r", "r2logr"])
@pytest.mark.parametrize(("smoothing", "noise"), [(0.0, 1.0), (0.01, 1.0), (0.1, 3.0), (10, 3.0)])
def test_a_field_stays_within_its_stated_bound(kernel, smoothing, noise):
    grid = Grid((128, 128, 128), np.eye(4))
    for seed in range(2):
        spline = a_spline(smoothing=smoothing, seed=seed, kernel=kernel, noise=noise)
        lattice = SplineLattice.of(spline.spline, grid, TOLERANCE_VOXELS)
        wrong = errors(spline, lattice, grid)
        assert lattice.bound_mm <= TOLERANCE_VOXELS
        assert wrong.max() <= lattice.bound_mm + 1e-4
        assert wrong.mean() <= 0.001
        assert (lattice.steps > 1).all()


def test_the_bound_holds_where_it_is_loose():
    grid = Grid((96, 96, 96), np.eye(4))
    spline = a_spline(60, 96, 0.0)
    wrongs = []
    for tolerance in (0.01, 0.3, 3.0):
        lattice = SplineLattice.of(spline.spline, grid, tolerance)
        wrongs.append(errors(spline, lattice, grid).max())
        assert wrongs[-1] <= lattice.bound_mm <= tolerance
    assert wrongs[0] < wrongs[2]


def test_oblique_anisotropic_and_sheared_grids_work_too():
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    matrix[:3, :3] = matrix[:3, :3] @ [[1.0, 0.2, 0], [0, 0.8, 0], [0, 0, -4]]
    grid = Grid((150, 160, 30), matrix)
    centres = grid.world(np.random.default_rng(3).uniform(0, 1, (80, 3)) * grid.size)
    moved = centres + np.random.default_rng(4).normal(0, 1, centres.shape)
    spline = fit_tps(centres, moved, smoothing=0.1)
    lattice = SplineLattice.of(spline.spline, grid, 0.05)
    assert lattice.steps[0] > 2
    assert errors(spline, lattice, grid).max() <= lattice.bound_mm + 1e-4


def test_pictures_and_points_outside_the_image_work_too():
    grid = Grid.of_picture(600, 500)
    spline = a_spline(100, 700, 0.1, planar=True)
    lattice = SplineLattice.of(spline.spline, grid, 0.05)
    assert lattice.steps[0] > 2
    assert errors(spline, lattice, grid).max() <= lattice.bound_mm + 1e-4


def test_512_points_on_a_large_grid_need_little_memory():
    grid = Grid((160, 160, 160), np.eye(4))
    spline = a_spline(512, 160, 0.01)
    tracemalloc.start()
    field = displacements(spline, grid)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < field.nbytes + 150e6


def test_the_moving_points_can_be_asked_for_in_any_frame():
    grid = Grid((64, 64, 64), np.eye(4))
    spline = a_spline(40, 64, 0.1)
    frame = np.array([[0, 2.0, 0, 5], [-1, 0, 0, 3], [0, 0, 0.5, 1], [0, 0, 0, 1]])
    block = voxel_map(spline, grid, frame).block(slice(10, 20), slice(30, 40))
    points = grid.lattice().reshape(64, 64, 64, 3)[10:20, 30:40].reshape(-1, 3)
    expected = spline(points) @ frame[:3, :3].T + frame[:3, 3]
    np.testing.assert_allclose(block.reshape(3, -1).T, expected, atol=0.05)


@pytest.mark.parametrize("kind", ["affine", "field", "spline"])
def test_displacements_of_any_transform_agree_with_calling_it(kind):
    grid = Grid((40, 30, 20), np.diag([1.0, 1.5, 2, 1]))
    matrix = np.eye(4)
    matrix[:3] = [[0.9, 0.1, 0, 4], [0, 1.1, 0.2, -3], [0.1, 0, 1, 2]]
    transform = {
        "affine": Affine(matrix),
        "field": DisplacementField.sampled(Affine(matrix), grid),
        "spline": a_spline(30, 40, 0.5),
    }[kind]
    points = grid.lattice()
    expected = transform(points) - points
    np.testing.assert_allclose(displacements(transform, grid).reshape(3, -1).T, expected, atol=0.03)


def test_the_weights_are_those_of_scipys_quintic_spline():
    grid = Grid((50, 1, 1), np.eye(4))
    nodes = spline_lattice_grid(grid, np.array([4, 1, 1]))
    values = np.random.default_rng(2).normal(size=nodes.size[0])
    oracle = make_interp_spline(nodes.lattice()[:, 0], values, k=5)  # not-a-knot
    np.testing.assert_allclose(
        spline_weights(grid, nodes, 0) @ values, oracle(np.arange(50.0)), atol=1e-9
    )


@pytest.mark.parametrize("kernel", ["r", "r2logr"])
def test_a_softened_kernel_and_its_peak_add_up_and_its_derivative_is_bounded(kernel):
    softened = Softened(kernel, 7.0)
    u = np.linspace(-20, 20, 4001)
    for offset in (0.0, 1.0, 3.0, 6.0):
        r = np.hypot(u, offset)
        smooth = softened.scale * softened((r / 7) ** 2)
        peak = softened.scale * softened.peak(np.minimum(r / 7, 1) ** 2)
        whole = smooth + np.where(r < 7, peak, 0)
        exact = -r if kernel == "r" else r**2 * np.log(np.where(r > 0, r, 1))
        np.testing.assert_allclose(whole, exact, atol=1e-9)
        h = 0.25  # sixth differences of every 25th sample
        differences = np.diff(smooth.reshape(-1)[: 4000].reshape(-1, 25)[:, 0], 6) / h**6
        nearest = np.maximum(np.abs(u[:4000:25][3:-3]) - 3 * h, 0)
        limit = softened.sixth_derivative(np.hypot(nearest, offset))
        assert (np.abs(differences) <= limit * 1.001 + 1e-4).all()


@pytest.mark.parametrize("kernel", ["r", "r2logr"])
@pytest.mark.parametrize("planar", [False, True])
def test_a_sweep_equals_separate_fits(kernel, planar):
    reference = a_spline(150, 100, planar=planar)
    fixed, moving, weights = (
        reference.fixed_points, reference.moving_points, reference.weights,
    )
    smoothings = (0.0, 0.01, 0.1, 1.0, 10.0, np.inf)
    probe = np.random.default_rng(5).uniform(-20, 120, (300, 3)) * [1, 1, 0 if planar else 1]
    sweep = fit_tps_sweep(fixed, moving, smoothings, weights, kernel)
    for smoothing, spline in zip(smoothings, sweep, strict=True):
        alone = fit_tps(fixed, moving, weights, smoothing, kernel)
        assert spline.smoothing == smoothing
        np.testing.assert_allclose(spline(probe), alone(probe), rtol=1e-9, atol=1e-9)


def test_a_sweep_refuses_what_a_fit_refuses():
    fixed = np.random.default_rng(6).normal(size=(12, 3))
    fixed[1] = fixed[0]
    with pytest.raises(DegeneratePointsError, match="coincide"):
        fit_tps_sweep(fixed, fixed + 1, (0.1, 0.0))
    with pytest.raises(InputError, match="negative"):
        fit_tps_sweep(fixed, fixed + 1, (0.1, -1.0))
    assert len(fit_tps_sweep(fixed, fixed + 1, (0.1, 1.0))) == 2


def test_sampling_a_field_from_a_spline_keeps_to_the_spline():
    grid = Grid((100, 90, 80), np.eye(4))
    spline = a_spline(100, 90, 0.1)
    field = as_field(spline, grid)
    index = probes(spline, grid)
    wrong = np.linalg.norm(field(grid.world(index)) - spline(grid.world(index)), axis=1)
    assert wrong.mean() < 0.01
    assert wrong.max() < 0.1
