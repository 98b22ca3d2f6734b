"""The canvas and what is on it: bounded, equally bright, of one type, black outside."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.mosaic.blending import (
    Layer,
    alike,
    blended,
    depth_of,
    gains_of,
    refuse_other_types,
    rim_of,
)
from retreg_server.registration.model import Stages
from retreg_server.reporting.canvas import union_grid

SIZE, SHIFT = 120, 50


def scene(channels=3, seed=0):
    """Something smooth and bright (channels, 1, SIZE, SIZE + SHIFT) float."""
    y, x = np.mgrid[:SIZE, : SIZE + SHIFT] / 30.0
    waves = [120 + 40 * np.sin(x + c) * np.cos(y * (c + 1)) for c in range(channels)]
    return np.stack(waves)[:, None] + np.random.default_rng(seed).normal(0, 1, (SIZE, SIZE + SHIFT))


def layer_of(values, left, gain=1.0, dtype=np.uint8):
    """A round view of the scene from column left on."""
    part = values[..., left : left + SIZE] * gain
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    part = np.where(np.hypot(x, y) < 0.48 * SIZE, part, 0)
    image = Image(np.clip(part, 0, np.iinfo(dtype).max).astype(dtype), Grid.of_picture(SIZE, SIZE))
    depth = depth_of(image)
    moved = np.eye(4)
    moved[0, 3] = -left
    transform = Affine(moved)
    return Layer(image, depth, transform, transform.inverse(rim_of(depth)))


CANVAS = Grid.of_picture(SIZE + SHIFT, SIZE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_two_views_become_the_scene_that_they_were_cut_from(dtype, channels):
    scale = 200 if dtype == np.uint16 else 1
    values = scene(channels) * scale
    layers = [layer_of(values, left, dtype=dtype) for left in (0, SHIFT)]
    picture, mask = blended(layers, np.ones((2, channels)), CANVAS, Stages())
    assert picture.array.dtype == dtype
    shown = mask.array[0, 0] > 0
    assert 0.5 < shown.mean() < 0.9
    assert np.abs(picture.array[:, 0] - values[:, 0])[:, shown].max() <= 1 + scale * 1e-3
    assert not picture.array[:, 0, ~shown].any()
    assert set(np.unique(mask.array)) == {0, 255}


def test_views_of_other_exposure_are_made_alike():
    values = scene()
    layers = [layer_of(values, 0, 0.7), layer_of(values, SHIFT, 1.1)]
    gains = gains_of(layers, CANVAS)
    assert np.allclose(gains[0] / gains[1], 1.1 / 0.7, rtol=0.03)
    assert np.allclose(gains[0] * gains[1], 1, rtol=0.05)


def test_a_grey_view_takes_the_hue_of_a_colour_view_and_not_the_other_way():
    values = scene() * np.array([1.2, 0.8, 0.5])[:, None, None, None]
    grey = np.repeat(values.mean(axis=0, keepdims=True), 3, axis=0)
    colour, plain = gains_of([layer_of(values, 0), layer_of(grey, SHIFT)], CANVAS)
    assert np.allclose(colour, 1, atol=0.03)
    assert plain[0] > 1.3 * plain[1] > 1.6 * plain[2]


def test_views_that_do_not_meet_keep_their_brightness():
    layers = [layer_of(scene(), 0, 0.7), layer_of(scene(), 0, 1.1)]
    moved = np.eye(4)
    moved[0, 3] = -400
    far = Layer(layers[1].image, layers[1].depth, Affine(moved), layers[1].rim + (400, 0, 0))
    assert np.allclose(gains_of([layers[0], far], Grid.of_picture(520, SIZE)), 1)


def test_grey_and_colour_and_depths_go_together():
    grid = Grid.of_picture(16, 16)
    grey = Image(np.full((1, 1, 16, 16), 100, np.uint8), grid)
    deep = Image(np.full((3, 1, 16, 16), 25700, np.uint16), grid)
    opaque = Image(np.full((4, 1, 16, 16), 100, np.uint8), grid)
    for each in alike([grey, deep, opaque]):
        assert each.array.shape == (3, 1, 16, 16)
        assert each.array.dtype == np.uint16
        assert (each.array == 25700).all()
    assert alike([grey, grey])[0].array.shape[0] == 1


def test_numbers_that_are_no_brightness_are_refused_by_name():
    image = Image(np.zeros((1, 1, 16, 16), np.float32), Grid.of_picture(16, 16))
    bytes_ = Image(image.array.astype(np.uint8), image.grid)
    with pytest.raises(InputError, match=r"second.*8 or 16 bits"):
        refuse_other_types([bytes_, image], ["first", "second"])


def test_the_canvas_holds_all_points_and_keeps_the_pixels():
    grid = Grid((40, 30, 1), np.diag([0.5, 0.5, 1, 1]))
    points = np.array([[-3.2, 1, 0], [25, 19.9, 0]])
    canvas = union_grid(grid, points)
    assert canvas.contains(points).all()
    assert np.allclose(canvas.spacing, grid.spacing)
    index = grid.index(canvas.world(np.zeros((1, 3))))
    assert np.allclose(index, np.rint(index))


@pytest.mark.parametrize("size", [3999, 641, 901, 1113])
def test_the_longer_side_is_never_more_than_was_asked_for(size):
    points = np.array([[0, 0, 0], [size, 10, 0.0]])
    assert union_grid(Grid.of_picture(400, 300), points, 300).size[0] == 300


def test_larger_pixels_hold_all_as_well():
    canvas = union_grid(Grid.of_picture(400, 300), np.array([[0, 0, 0], [3999, 1999, 0.0]]), 500)
    assert canvas.size == (500, 250, 1)
    assert np.allclose(canvas.spacing[:2], 8)
    assert canvas.contains(np.array([[0, 0, 0], [3999, 1999, 0.0]])).all()


@pytest.mark.parametrize("far", [(20_000, 9_000), (3e6, 10), (10, 1e9)])
def test_a_canvas_that_is_too_large_is_refused_before_it_is_filled(far):
    with pytest.raises(InputError, match=r"canvas of .* x .* pixels.*--longest"):
        union_grid(Grid.of_picture(400, 300), np.array([[0, 0, 0], [*far, 0]], float))
