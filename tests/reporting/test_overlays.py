"""The picture that shows whether a result is right: what a person must be able to see on it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.resample import resample
from retreg.transforms import Affine
from retreg_server.reporting import overlays
from retreg_server.reporting.overlays import (
    DIMMED,
    INLIER,
    OUTLIER,
    checkerboard,
    overlay,
    thumbnail,
    write_png,
)
from retreg_server.reporting.sheet import GAP, PAPER, TITLE, Panel, Sign, sheet
from retreg_server.reporting.views import PANEL, object_in, seen, shown, shrunk, views


def moved(x: float, y: float) -> Affine:
    matrix = np.eye(4)
    matrix[:2, 3] = x, y
    return Affine(matrix)


def a_round_picture(size: int, colour: tuple[int, int, int], radius: float = 0.4) -> Image:
    """A disc of one colour in the middle of black, as a fundus camera makes it."""
    j, i = np.indices((size, size)) - (size - 1) / 2
    inside = i**2 + j**2 < (radius * size) ** 2
    return Image(
        (inside * np.array(colour)[:, None, None])[:, None].astype(np.uint8),
        Grid.of_picture(size, size),
    )


def a_result(transform: Affine, points: np.ndarray | None = None) -> RegistrationResult:
    points = np.zeros((0, 3)) if points is None else points
    inliers = np.arange(len(points)) % 2 == 0
    keypoints = Keypoints(points, np.ones(len(points)), inliers)
    quality = Quality({}, "check", "Look at it before you use it: it may be off.")
    return RegistrationResult(transform, keypoints, keypoints, quality, {})


RED, BLUE = (200, 40, 40), (40, 40, 200)


@pytest.mark.parametrize("shift", [(0, 0), (60, 0), (-50, 70), (400, 0)])
def test_no_field_of_the_checkerboard_is_black_where_one_image_shows_something(shift):
    fixed, moving = a_round_picture(300, RED), a_round_picture(300, BLUE)
    transform = moved(*shift)
    board = checkerboard(fixed, moving, transform, fixed.grid)
    either = seen(fixed, Affine.identity(), fixed.grid) | seen(moving, transform, fixed.grid)
    assert board[either].sum(axis=1).min() > 0.9 * DIMMED * sum(RED)


def test_what_only_one_image_shows_is_dimmed_and_what_both_show_is_not():
    fixed, moving = a_round_picture(300, RED), a_round_picture(300, BLUE)
    board = checkerboard(fixed, moving, moved(-100, 0), fixed.grid)
    np.testing.assert_allclose(board[150, 50], np.array(RED) * DIMMED, atol=1)  # fixed alone
    np.testing.assert_allclose(board[150, 285], np.array(BLUE) * DIMMED, atol=1)  # moving alone
    both = {tuple(colour) for colour in board[150, 140:250]}
    assert both == {RED, BLUE}


def test_a_volume_that_ends_shows_the_other_one_beyond_its_end():
    grid = Grid((30, 30, 30), np.diag([2.0, 2, 2, 1]))
    values = np.random.default_rng(0).integers(0, 900, (2, 1, 30, 30, 30), np.int16)
    fixed, moving = (Image(each, grid) for each in values)
    axial = views(grid)[0]
    board = checkerboard(fixed, moving, moved(30, 0), axial)
    alone = shown(fixed, Affine.identity(), axial) * DIMMED  # the right half
    np.testing.assert_allclose(board[:, 260:470], alone[:, 260:470], atol=1)


@pytest.mark.parametrize(("size", "rows"), [(PANEL, 2), (1500, 3)])
def test_a_large_picture_has_details_in_its_own_pixels(monkeypatch, size, rows):
    fixed = a_round_picture(size, RED)
    seen_rows = []
    monkeypatch.setattr(
        overlays, "sheet", lambda panels, *_: seen_rows.extend(panels) or np.zeros((1, 1, 3))
    )
    overlay(fixed, fixed, a_result(Affine.identity()))
    assert len(seen_rows) == rows
    for row in seen_rows[1:-1]:
        assert [panel.rgb.shape[:2] for panel in row] == [(PANEL, PANEL)] * 2
        assert all("pixel by pixel" in panel.title for panel in row)


def test_an_error_of_one_pixel_in_3000_is_a_step_of_one_pixel_in_the_details():
    stripes = np.zeros((1, 1, 1000, 1000), np.uint8)
    stripes[..., 500:] = 200
    fixed = Image(stripes, Grid.of_picture(1000, 1000))
    (left, _) = overlays._windows(fixed, (fixed, fixed), moved(1, 0), views(fixed.grid)[0])
    board = checkerboard(fixed, fixed, moved(1, 0), left)[..., 0]
    edges = {int(np.argmax(row > 100)) for row in board}
    assert len(edges) == 2
    assert max(edges) - min(edges) == 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 4.0)])
def test_keypoints_of_a_volume_are_seen_beside_its_slices_too(spacing):
    grid = Grid((60, 60, 40), np.diag([*spacing, 1.0]))
    image = Image(np.random.default_rng(0).integers(0, 99, (1, *grid.shape), np.int16), grid)
    points = grid.centre + np.array([[8.0, 9, 12], [-9, 10, -11]])
    picture = overlay(image, image, a_result(Affine.identity(), points))
    panels = picture[: -4 * 26]  # without the legend
    for colour in (INLIER, OUTLIER):
        assert (panels == colour).all(axis=2).sum() > 3 * 15


def test_a_keypoint_far_from_a_slice_is_not_drawn_on_it():
    grid = Grid((60, 60, 60), np.eye(4))
    image = Image(np.zeros((1, 60, 60, 60), np.int16), grid)
    far = Keypoints(grid.centre[None] + [[0, 0, 25.0]], np.ones(1), np.ones(1, bool))
    axial, coronal, _ = views(grid)
    for view, is_drawn in ((axial, False), (coronal, True)):
        rgb = shown(image, Affine.identity(), view)
        drawn = overlays._with_keypoints(rgb, view, far, is_slice=True)
        assert (drawn == INLIER).all(axis=2).any() == is_drawn


def test_the_sheet_carries_verdict_and_counts(monkeypatch):
    told = []
    monkeypatch.setattr(
        overlays, "sheet", lambda _, legend, caption: told.extend([legend, caption])
    )
    image = a_round_picture(120, RED)
    overlay(image, image, a_result(Affine.identity(), np.array([[50.0, 60, 0]] * 3)))
    legend, caption = told
    words = " ".join(sign.words for sign in legend)
    assert "only one of the images" in words
    assert "2 of 3" in words
    assert "left out (1)" in words
    assert caption[0].startswith("Verdict: check. Look at it before you use it")


def test_words_stay_on_the_sheet():
    panel = Panel("A title", np.zeros((50, 60, 3), np.uint8))
    signs = [Sign(INLIER, "a sign of the legend that is rather long " * 2) for _ in range(3)]
    picture = sheet([[panel, panel], [panel]], signs, ["many words " * 60])
    assert (picture[:, -GAP // 2 :] == PAPER).all()  # nothing runs over the edge
    assert (picture[-GAP // 2 :] == PAPER).all()
    assert (picture[2 * TITLE + 100 :] != PAPER).any(axis=2).sum() > 3000


def test_a_picture_is_averaged_where_it_is_shrunk():
    fine = np.indices((900, 900)).sum(axis=0) % 2 * 200  # every other pixel
    small = shrunk(Image(fine[None, None].astype(np.uint8), Grid.of_picture(900, 900)), 300)
    assert small.grid.size == (300, 300, 1)
    np.testing.assert_allclose(small.grid.centre, [449.5, 449.5, 0])
    assert small.array.std() < 12


def test_the_object_of_a_volume_leaves_the_air_out():
    grid = Grid((40, 40, 40), np.diag([5.0, 5, 5, 1]))
    distance = np.linalg.norm(grid.lattice() - grid.centre, axis=1).reshape(grid.shape)
    values = np.where(distance < 60, 800, 0) + np.random.default_rng(0).integers(0, 20, grid.shape)
    view = views(grid)[0]
    inside = object_in(Image(values[None].astype(np.int16), grid), view)
    share = np.pi * 60**2 / 200**2
    assert inside.mean() == pytest.approx(share, rel=0.1)


def test_a_thumbnail_is_the_checkerboard_alone():
    fixed, moving = a_round_picture(900, RED), a_round_picture(900, BLUE)
    small = thumbnail(fixed, moving, Affine.identity(), 120)
    assert small.shape == (120, 120, 3)
    in_red, in_blue = ((np.abs(small.astype(int) - c) < 30).all(axis=2) for c in (RED, BLUE))
    assert in_red.mean() > 0.2
    assert in_blue.mean() > 0.2


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_as_png_is_what_is_read(tmp_path, channels):
    drawn = np.random.default_rng(2).integers(0, 256, (40, 60, 3), np.uint8)
    drawn = drawn if channels == 3 else drawn[..., 0]
    write_png(tmp_path / "drawn.png", drawn)
    np.testing.assert_array_equal(np.asarray(Picture.open(tmp_path / "drawn.png")), drawn)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_shown_as_they_are_resampled(dtype, channels):
    noise = np.random.default_rng(3).integers(0, 200, (channels, 1, 90, 120))
    picture = Image(noise.astype(dtype), Grid.of_picture(120, 90))
    matrix = np.eye(4)
    matrix[:2] = [[0.9, -0.2, 0, 7.3], [0.2, 0.9, 0, -4.1]]
    found = shown(picture, Affine(matrix), picture.grid).astype(float)
    expected = resample(picture, Affine(matrix), picture.grid).array[:, 0].astype(float)
    if not (dtype == np.uint8 and channels == 3):  # which is shown as it is
        low, high = np.percentile(picture.grey(), (1, 99.5))
        expected = np.clip((expected - low) / (high - low), 0, 1) * 255
    assert np.abs(found - np.moveaxis(expected, 0, -1)).max() < 3
