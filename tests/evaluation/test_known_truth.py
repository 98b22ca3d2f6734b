"""Pairs made by resampling: the stated truth must be where the image content went."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.evaluation.known_truth import (
    axis_rotation,
    foreground,
    foreground_points,
    inside,
    random_turn,
    relit,
    smooth_warp,
    turned_picture,
    turned_volume,
)


def a_spot(grid: Grid, at: np.ndarray, width: float) -> np.ndarray:
    distance = np.linalg.norm(grid.lattice() - at, axis=1)
    return np.exp(-0.5 * (distance / width) ** 2).reshape(grid.shape)


def centre_of_brightness(image: Image) -> np.ndarray:
    grey = image.grey().ravel()
    return (image.grid.lattice() * grey[:, None]).sum(axis=0) / grey.sum()


@pytest.mark.parametrize(("angle", "scale"), [(30, 0.75), (141, 1.3), (330, 1.0)])
def test_a_spot_lands_where_the_turned_picture_says(angle, scale):
    grid, at = Grid.of_picture(90, 60), np.array([22.0, 41.0, 0.0])
    original = Image(1000 * a_spot(grid, at, 3.0)[None], grid)
    turned, original_from_moving = turned_picture(original, angle, scale)
    found = original_from_moving(centre_of_brightness(turned)[None])
    assert found[0] == pytest.approx(at, abs=0.05)


def test_nothing_of_a_turned_picture_is_lost():
    original = Image(np.full((3, 1, 60, 90), 100.0), Grid.of_picture(90, 60))
    turned, _ = turned_picture(original, 77, 1.2)
    expected = 60 * 90 * 100 * 1.2**2
    assert turned.array[0].sum() == pytest.approx(expected, rel=0.01)


def a_head() -> Image:
    grid = Grid((40, 50, 20), np.diag([1.0, 1.0, 2.0, 1.0]))
    distance = np.linalg.norm((grid.lattice() - (20, 22, 18)) / (14, 17, 12), axis=1)
    values = 500.0 * (distance < 1).reshape(grid.shape) + 400 * a_spot(grid, (26, 30, 20), 2.5)
    return Image(values[None], grid)


@pytest.mark.parametrize("angle", [10, 95, 180])
def test_a_turned_head_is_where_its_matrix_says_and_complete(angle):
    head = a_head()
    rotation, shift = random_turn(np.random.default_rng(angle), angle)
    turned, original_from_moving = turned_volume(head, rotation, shift)
    found = original_from_moving(centre_of_brightness(turned)[None])
    assert found[0] == pytest.approx(centre_of_brightness(head), abs=0.15)
    volume = np.prod(turned.grid.spacing)
    assert turned.array.sum() * volume == pytest.approx(head.array.sum() * 2, rel=0.02)


def test_random_turn_has_the_stated_angle_and_a_bounded_shift():
    for seed in range(20):
        rotation, shift = random_turn(np.random.default_rng(seed), 123.0)
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.degrees(np.arccos((np.trace(rotation) - 1) / 2)) == pytest.approx(123)
        assert np.linalg.norm(shift) <= 20


def test_rotation_about_z_takes_x_to_y():
    assert axis_rotation(np.array([0, 0, 2]), 90) @ (1, 0, 0) == pytest.approx([0, 1, 0])


def test_smooth_warp_bends_by_the_stated_length_beyond_its_affine():
    grid = Grid.of_picture(400, 300)
    warp = smooth_warp(np.random.default_rng(5), grid, 6.0)
    points = grid.lattice(5)
    residual = Affine(warp.transforms[1].moving_from_fixed).inverse(warp(points)) - points
    assert np.sqrt((residual**2).sum(axis=1).mean()) == pytest.approx(6.0, rel=0.1)


def test_relit_keeps_black_black_and_changes_the_rest():
    picture = Image(np.full((3, 1, 40, 40), 120, np.uint8), Grid.of_picture(40, 40))
    picture.array[:, :, :, :10] = 0
    other = relit(np.random.default_rng(1), picture)
    assert (other.array[..., :10] == 0).all()
    assert np.abs(other.array[..., 10:].astype(float) - 120).mean() > 10


def test_foreground_is_the_filled_head_without_specks():
    head = a_head()
    head.array[0, 10, 22, 20] = 0  # a hole
    head.array[0, 1, 1, 1] = 500  # a speck
    mask = foreground(head)
    assert mask[10, 22, 20]
    assert not mask[1, 1, 1]
    points = foreground_points(head, at_most=200)
    assert 150 < len(points) < 450
    assert inside(mask, head.grid, points).all()
    assert not inside(mask, head.grid, np.array([[1.0, 1.0, 1.0], [1e4, 0, 0]])).any()


def test_black_has_no_foreground():
    assert not foreground(Image(np.zeros((1, 4, 4, 4)), Grid((4, 4, 4), np.eye(4)))).any()
