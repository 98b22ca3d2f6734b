from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from retreg.transforms import Affine
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.pair import PhantomPair


@pytest.fixture(scope="module")
def a_turned_pair() -> PhantomPair:
    return make_fundus_pair(
        4, size=512, rotation_deg=75.0, scale=1.1, elastic_px=3.0, moving="redfree"
    )


def green(pair: PhantomPair) -> tuple[np.ndarray, np.ndarray]:
    return pair.fixed.array[1, 0].astype(float), pair.moving.array[0, 0].astype(float)


def correlation_near_landmarks(pair: PhantomPair, move: tuple[float, float]) -> float:
    """Correlation of local detail in both pictures at landmarks, the moving ones displaced."""
    fixed, moving = (g - ndimage.gaussian_filter(g, 12) for g in green(pair))
    axis = np.arange(-9, 10)
    patch = np.stack([*np.meshgrid(axis, axis), np.zeros((19, 19))], axis=-1).reshape(-1, 3)
    points = (pair.landmarks[:, None] + patch).reshape(-1, 3)
    there = pair.truth(points) + np.array([*move, 0.0])
    seen = [
        ndimage.map_coordinates(image, p[:, 1::-1].T, order=1)
        for image, p in ((fixed, points), (moving, there))
    ]
    return float(np.corrcoef(*seen)[0, 1])


def test_the_same_seed_gives_the_same_pair() -> None:
    first, second = make_fundus_pair(7, size=256), make_fundus_pair(7, size=256)
    assert np.array_equal(first.fixed.array, second.fixed.array)
    assert np.array_equal(first.moving.array, second.moving.array)
    other = make_fundus_pair(8, size=256)
    assert np.abs(first.fixed.array.astype(float) - other.fixed.array).mean() > 5


def test_a_colour_picture_and_a_grey_angiogram_come_out() -> None:
    pair = make_fundus_pair(1, size=300)
    assert pair.fixed.array.shape == (3, 1, 300, 300)
    assert pair.moving.array.shape == (1, 1, 300, 300)
    assert pair.fixed.array.dtype == pair.moving.array.dtype == np.uint8
    red, green_, blue = pair.fixed.array[:, 0, 100:200, 100:200].mean(axis=(1, 2))
    assert red > 1.4 * green_ > 1.4 * blue


def test_the_border_outside_the_field_of_view_is_black(a_turned_pair: PhantomPair) -> None:
    y, x = np.mgrid[:512, :512] - 255.5
    outside = np.hypot(x, y) > 0.49 * 512
    assert a_turned_pair.fixed.array[:, 0, outside].max() == 0
    assert a_turned_pair.moving.array[:, 0, outside].max() == 0


def test_the_truth_brings_both_pictures_together_to_the_pixel(a_turned_pair: PhantomPair) -> None:
    matched = correlation_near_landmarks(a_turned_pair, (0.0, 0.0))
    assert matched > 0.9
    for move in ((1.5, 0.0), (-1.5, 0.0), (0.0, 1.5), (0.0, -1.5)):
        assert correlation_near_landmarks(a_turned_pair, move) < matched - 0.03


def test_vessels_are_dark_in_colour_and_bright_in_the_angiogram() -> None:
    pair = make_fundus_pair(2, size=512, rotation_deg=0.0, shift=(0.0, 0.0), elastic_px=0.0)
    fixed, moving = (g - ndimage.gaussian_filter(g, 12) for g in green(pair))
    column, row = np.rint(pair.landmarks[:, :2]).astype(int).T
    assert np.median(fixed[row, column]) < -5
    assert np.median(moving[row, column]) > 5


def test_rotation_scale_and_shift_are_the_ones_asked_for() -> None:
    pair = make_fundus_pair(
        3, size=200, rotation_deg=90.0, scale=0.8, shift=(0.05, 0.0), elastic_px=0.0
    )
    assert isinstance(pair.truth, Affine)
    middle = np.array([99.5, 99.5, 0.0])
    seen = pair.truth(np.array([middle, middle + (10.0, 0, 0)]))
    assert seen == pytest.approx(np.array([middle + (10, 0, 0), middle + (10, 8, 0)]), abs=1e-9)


def test_the_elastic_part_has_the_size_asked_for() -> None:
    bent = make_fundus_pair(3, size=256, elastic_px=3.0)
    stiff = make_fundus_pair(3, size=256, elastic_px=0.0)
    inside = np.concatenate([bent.landmarks, stiff.landmarks])
    distance = np.linalg.norm(bent.truth(inside) - stiff.truth(inside), axis=1)
    assert 1.0 < np.sqrt((distance**2).mean()) < 6.0


def test_landmarks_lie_in_both_fields_of_view(a_turned_pair: PhantomPair) -> None:
    assert len(a_turned_pair.landmarks) > 100
    middle = np.array([255.5, 255.5, 0.0])
    for points in (a_turned_pair.landmarks, a_turned_pair.truth(a_turned_pair.landmarks)):
        assert np.linalg.norm(points - middle, axis=1).max() < 0.485 * 512
        assert (points[:, 2] == 0).all()
