"""Smooth fields through scattered shifts, and the deformation that tracked vessels give."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import kv

from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.fundus import deformation, matern_field
from retreg_server.registration.fundus.auto import AutoFundus
from retreg_server.registration.fundus.deformation import (
    SHRINK,
    dense_displacement,
)
from retreg_server.registration.fundus.displacement_search import searched_displacement
from retreg_server.registration.fundus.matern_field import smooth_field
from retreg_server.registration.fundus.tracking import patch_similarity, tracked, warped
from retreg_server.registration.fundus.vessel_pyramid import (
    PixelDisplacement,
    VesselPyramidLevel,
    pyramid,
)
from retreg_server.registration.model import Stages
from retreg_server.registration.preprocessing.retina_picture import retina_picture
from retreg_server.registration.preprocessing.vesselness import eroded, vessel_maps

SIZE = 384
SHAPE = (300, 400)


def scattered(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform((0, 0), SHAPE[::-1], (count, 2))


def hills(points: np.ndarray) -> np.ndarray:
    u, v = points.T / 60
    return np.column_stack([5 * np.sin(u) * np.cos(v), 4 * np.cos(u + v)])


def test_a_smooth_field_is_the_mean_of_a_matern_process(monkeypatch):
    """Kriging in its usual form: solve for the covariances of the points, without a lattice."""
    amplitude, distance, noise = 3.0, 120.0, 0.8
    monkeypatch.setattr(matern_field, "FIRST_AMPLITUDE", amplitude)
    monkeypatch.setattr(matern_field, "RANGE", distance)
    monkeypatch.setattr(matern_field, "FIRST_NOISE", noise)
    monkeypatch.setattr(matern_field, "SHARED", 1.0)
    monkeypatch.setattr(matern_field, "SPACING", 10.0)
    monkeypatch.setattr(matern_field, "TOLERANCES", (1.0,))
    matern_field._prior.cache_clear()
    points = scattered(300)
    shifts = hills(points) + np.random.default_rng(2).normal(0, noise, points.shape)
    found = smooth_field(points, shifts, np.ones(300), SHAPE)
    matern_field._prior.cache_clear()

    def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        way = np.sqrt(8) / distance * np.maximum(cdist(a, b), 1e-9)
        return amplitude**2 * way * kv(1, way)

    inner = scattered(200, 5) * 0.6 + np.array(SHAPE[::-1]) * 0.2
    known = covariance(points, points) + noise**2 * np.eye(300)
    expected = covariance(inner, points) @ np.linalg.solve(known, shifts)
    # The lattice ends next to the picture, where the process would go on.
    difference = np.linalg.norm(found(inner) - expected, axis=1)
    assert difference.mean() < 0.03 * np.linalg.norm(expected, axis=1).mean()


def test_far_from_all_points_the_field_falls_back_towards_zero():
    points = scattered(500) * 0.4
    found = smooth_field(points, np.full((500, 2), (3.0, -2.0)), np.ones(500), SHAPE)
    lengths = np.linalg.norm(found(np.array([[80.0, 60], [250, 200], [395, 295]])), axis=1)
    assert lengths[0] == pytest.approx(np.hypot(3, 2), abs=0.05)
    assert lengths[0] > 1.1 * lengths[1] > 1.2 * lengths[2]


def test_shifts_that_only_tremble_are_hardly_followed():
    points = scattered(600)
    strays = np.random.default_rng(6).normal(0, 0.5, points.shape)
    found = smooth_field(points, strays, np.ones(600), SHAPE)(points)
    assert np.linalg.norm(found, axis=1).mean() < 0.2 * np.linalg.norm(strays, axis=1).mean()


def test_shifts_that_contradict_each_other_bend_the_field_less():
    points = scattered(600)
    strays = np.random.default_rng(6).normal(0, 1, points.shape)
    quiet, noisy = (
        smooth_field(points, hills(points) + size * strays, np.ones(600), SHAPE)(points)
        for size in (0.1, 0.7)
    )
    assert np.linalg.norm(quiet - hills(points), axis=1).mean() < 0.2
    assert np.linalg.norm(noisy - hills(points), axis=1).mean() < 0.7 * np.sqrt(2) / 2


def test_a_third_of_wrong_shifts_does_not_matter():
    points = scattered(900)
    shifts = hills(points)
    shifts[::3] += np.random.default_rng(3).uniform(-15, 15, shifts[::3].shape)
    found = smooth_field(points, shifts, np.ones(900), SHAPE)
    assert np.linalg.norm(found(points) - hills(points), axis=1).mean() < 0.6


@pytest.fixture(scope="module")
def vessels() -> VesselPyramidLevel:
    pair = make_fundus_pair(5, size=SIZE, moving="colour")
    picture = retina_picture(pair.fixed, "fixed", SIZE)
    maps = vessel_maps(picture.grey, picture.inside)
    return pyramid(maps.best, maps.valid, (1,))[0]


def here(points: np.ndarray) -> np.ndarray:
    return points


def waves(points: np.ndarray, height: float) -> np.ndarray:
    x, y = points.T * 2 * np.pi / SIZE
    return height * np.column_stack([np.sin(y), np.cos(x)])


def bent(level: VesselPyramidLevel, height: float) -> VesselPyramidLevel:
    """The level that shows at x what the given one shows at x + waves(x)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    points = np.column_stack([x.ravel(), y.ravel()]).astype(float)
    places = (points + waves(points, height)).reshape(SIZE, SIZE, 2).astype(np.float32)
    values = np.ascontiguousarray(level.samples[..., 0])
    image = cv2.remap(values, places, None, cv2.INTER_CUBIC)
    shown = cv2.remap(level.valid.astype(np.uint8), places, None, cv2.INTER_NEAREST)
    return pyramid(image, shown > 0, (1,))[0]


def strong(level: VesselPyramidLevel) -> np.ndarray:
    return np.argwhere((level.samples[..., 0] > 0.5) & level.valid)[::20, ::-1].astype(float)


def missed(displacement: PixelDisplacement, points: np.ndarray, height: float) -> np.ndarray:
    return np.linalg.norm(displacement(points) - points - waves(points, height), axis=1)


@pytest.mark.parametrize(("height", "limit"), [(2, 0.2), (7, 0.4)])
def test_waves_are_recovered_everywhere_not_only_on_vessels(vessels, height, limit):
    fixed = bent(vessels, height)
    displacement = dense_displacement(fixed, vessels, here)
    assert missed(displacement, strong(fixed), height).mean() < limit
    inside = np.argwhere(fixed.valid)[::50, ::-1].astype(float)
    assert missed(displacement, inside, height).mean() < 2 * limit


@pytest.fixture
def tracking_alone(monkeypatch):
    monkeypatch.setattr(deformation, "FAR", np.inf)


@pytest.mark.usefixtures("tracking_alone")
def test_a_start_that_is_nearly_right_is_refined_where_tracking_alone_fails(vessels):
    height = 24.0
    fixed = bent(vessels, height)
    side = SIZE // 8
    y, x = np.mgrid[:side, :side] * 8 + 3.5
    nodes = np.column_stack([x.ravel(), y.ravel()])
    near = waves(nodes, height - 3).reshape(side, side, 2).astype(np.float32)
    start = PixelDisplacement(near, 8)
    points = strong(fixed)
    alone = dense_displacement(fixed, vessels, here)
    helped = dense_displacement(fixed, vessels, here, start)
    assert missed(start, points, height).mean() > 2
    assert missed(alone, points, height).mean() > 4
    assert missed(helped, points, height).mean() < 0.6


def test_a_search_finds_long_ways_on_which_tracking_goes_astray(vessels, request):
    height = 24.0
    fixed = bent(vessels, height)
    points = strong(fixed)
    assert missed(dense_displacement(fixed, vessels, here), points, height).mean() < 0.8
    near = missed(searched_displacement(fixed, vessels, here), points, height)
    assert np.median(near) < 4
    request.getfixturevalue("tracking_alone")
    assert missed(dense_displacement(fixed, vessels, here), points, height).mean() > 4


def test_a_search_leaves_vessels_that_meet_where_they_are(vessels):
    points = strong(vessels)
    found = searched_displacement(vessels, vessels, here)(points)
    np.testing.assert_array_equal(found, points)


def test_a_start_stays_as_it_is_without_vessels():
    empty = VesselPyramidLevel(np.zeros((64, 80, 3), np.float32), np.ones((64, 80), bool), 1)
    start = PixelDisplacement(np.full((8, 10, 2), 1.5, np.float32), 8)
    points = np.array([[10.0, 20.0], [70.0, 50.0]])
    displacement = dense_displacement(empty, empty, here, start)
    np.testing.assert_array_equal(displacement(points), points + 1.5)
    np.testing.assert_array_equal(dense_displacement(empty, empty, here)(points), points)


def test_unrelated_vessels_do_not_fold_the_field(vessels):
    turned = VesselPyramidLevel(
        vessels.samples[::-1, ::-1].copy(), vessels.valid[::-1, ::-1].copy(), 1
    )
    displacement = dense_displacement(vessels, turned, here)
    down, across = np.gradient(displacement.vectors, displacement.factor, axis=(0, 1))
    determinants = (1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0]
    assert determinants.min() > 0.25
    assert displacement.factor == SHRINK or not displacement.vectors.any()


def test_a_map_brings_the_moving_picture_to_the_fixed_frame(vessels):
    """OpenCV warps the same affine map by itself; a map is known at every fourth pixel only."""
    matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), 20, 0.9)
    image, shown = warped(vessels, lambda p: p @ matrix[:, :2].T + matrix[:, 2], (SIZE, SIZE))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(
        np.ascontiguousarray(vessels.samples[..., 0]), matrix, (SIZE, SIZE), flags=flags
    )
    assert np.abs(image - expected)[eroded(shown, 2)].max() < 0.02
    assert eroded(shown, 2).mean() > 0.4


def test_points_that_move_too_far_count_as_lost(vessels):
    fixed = bent(vessels, 6)
    points = strong(fixed)
    _, weights = tracked(points, fixed, vessels, here, farthest=2.0)
    _, all_weights = tracked(points, fixed, vessels, here)
    length = np.linalg.norm(waves(points, 6), axis=1)
    assert (weights[length > 3] > 0).mean() < 0.1
    assert (all_weights > 0).mean() > 0.8


def test_what_looks_alike_counts_fully_and_what_does_not_hardly(vessels):
    points = strong(vessels)
    none = np.zeros_like(points)
    assert patch_similarity(points, none, vessels, vessels, here).min() > 0.99
    turned = VesselPyramidLevel(
        vessels.samples[::-1, ::-1].copy(), vessels.valid[::-1, ::-1].copy(), 1
    )
    assert patch_similarity(points, none, vessels, turned, here).mean() < 0.1
    assert patch_similarity(points + 8, none - 8, vessels, vessels, lambda p: p).mean() < 0.5
    dimmed = VesselPyramidLevel(0.4 * vessels.samples, vessels.valid, 1)
    assert patch_similarity(points, none, vessels, dimmed, here).min() > 0.99


def test_a_group_of_wrong_shifts_does_not_make_a_bulge():
    points = scattered(900)
    shifts = hills(points) / 2
    wrong = np.linalg.norm(points - (200, 150), axis=1) < 35
    shifts[wrong] += np.random.default_rng(4).uniform(-12, 12, (int(wrong.sum()), 2))
    found = smooth_field(points, shifts, np.ones(900), SHAPE)
    assert np.linalg.norm(found(points) - hills(points) / 2, axis=1)[wrong].mean() < 1.5


def test_an_angiogram_that_fits_already_is_not_bent_out_of_place():
    """The truth is a rotation; what the pictures show differently must not look like a bend."""
    pair = make_fundus_pair(45, size=512, rotation_deg=10, elastic_px=0)
    points = np.argwhere(pair.fixed.grey()[0] > 40)[::300, ::-1]
    world = pair.fixed.grid.world(np.pad(points, ((0, 0), (0, 1))))
    options = {"transform": "deformable", "smoothing": 0.1, "keypoints": "features"}
    found = AutoFundus().estimate(pair.fixed, pair.moving, options, Stages())
    error = np.linalg.norm(found.transform(world) - pair.truth(world), axis=1)
    assert error.mean() < 0.5
    assert np.percentile(error, 95) < 1.5
