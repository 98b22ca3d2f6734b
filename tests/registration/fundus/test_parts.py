"""The parts of the fundus models: field of view, vessels, search, refinement, local tracking."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.fundus.affine_quadratic import refined_quadratic
from retreg_server.registration.fundus.deformation import dense_displacement
from retreg_server.registration.fundus.features import Matches, ransac_affine
from retreg_server.registration.fundus.pixel_maps import QuadraticMap
from retreg_server.registration.fundus.rotation_scale_search import (
    SearchedMap,
    scales_near,
    searched,
)
from retreg_server.registration.fundus.vessel_pyramid import pyramid
from retreg_server.registration.model import Stages
from retreg_server.registration.preprocessing.field_of_view import field_of_view
from retreg_server.registration.preprocessing.retina_picture import retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps

SIZE = 384


@pytest.fixture(scope="module")
def vessels() -> tuple[np.ndarray, np.ndarray]:
    """A vessel map (h, w) and its valid pixels."""
    pair = make_fundus_pair(5, size=SIZE, moving="colour")
    picture = retina_picture(pair.fixed, "fixed", SIZE)
    maps = vessel_maps(picture.grey, picture.inside)
    return maps.best, maps.valid


def a_disc(radius: float = 90) -> np.ndarray:
    y, x = np.mgrid[:200, :256]
    return np.hypot(x - 128, y - 100) < radius


def resampled(values: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return cv2.remap(
        values, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_CUBIC
    )


def test_the_field_of_view_is_the_disc_without_the_text_in_the_corner():
    disc = a_disc()
    picture = np.where(disc, 150, 3).astype(np.uint8)
    cv2.putText(picture, "OD 12", (5, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 230)
    found = field_of_view(picture.astype(np.float32) / 255)
    assert (found & disc).sum() > 0.97 * disc.sum()
    assert (found & ~disc).sum() < 0.03 * disc.sum()


@pytest.mark.parametrize("surround", [3, 250])
@pytest.mark.parametrize("width", [1, 2])
def test_lines_drawn_around_the_retina_and_across_its_rim_are_none_of_it(surround, width):
    disc = a_disc(80)
    picture = np.where(disc, 130, surround).astype(np.uint8)
    cv2.rectangle(picture, (0, 0), (255, 199), 253 - surround, 2 * width)
    cv2.circle(picture, (110, 90), 85, 253 - surround, width)
    found = field_of_view(picture.astype(np.float32) / 255)
    assert (found & disc).sum() > 0.97 * disc.sum()
    assert (found & ~disc).sum() < 0.05 * disc.sum()


def test_a_white_surround_is_left_out_and_a_full_frame_is_kept():
    disc = a_disc()
    found = field_of_view(np.where(disc, 0.5, 1.0).astype(np.float32))
    assert abs(int(found.sum()) - int(disc.sum())) < 0.05 * disc.sum()
    frame = np.random.default_rng(0).uniform(0.2, 0.8, (200, 256)).astype(np.float32)
    assert field_of_view(frame).all()


def test_a_negative_has_the_same_vessels():
    pair = make_fundus_pair(5, size=SIZE, moving="colour")
    picture = retina_picture(pair.fixed, "fixed", SIZE)
    positive = vessel_maps(picture.grey, picture.inside)
    negative = vessel_maps(1 - picture.grey, picture.inside)
    np.testing.assert_allclose(positive.best, negative.best, atol=0.02)


def test_pixels_of_a_picture_keep_their_place_in_the_world():
    """The brightest spot of an oblique picture with oblong pixels is found at its world point."""
    values = np.full((1, 1, 300, 200), 20.0)
    values[0, 0, 204:219, 56:66] = 200
    matrix = np.array([[0, 0.2, 0.0, 5], [0.3, 0, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    image = Image(values, Grid((200, 300, 1), matrix))
    picture = retina_picture(image, "fixed", 600)
    blurred = cv2.GaussianBlur(picture.grey, (0, 0), 25)
    row, column = np.unravel_index(np.argmax(blurred), blurred.shape)
    found = picture.world(np.array([[column, row]], float))[0]
    expected = image.grid.world(np.array([[60.5, 211.0, 0]]))[0]
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_matches_without_a_common_affine_support_none():
    rng = np.random.default_rng(3)
    matches = Matches(rng.uniform(0, 700, (150, 2)), rng.uniform(0, 700, (150, 2)), np.ones(150))
    found = ransac_affine(matches, 6.0, seed=1)
    assert found is None or found.count < 14


@pytest.mark.parametrize(("angle", "zoom"), [(107, 0.83), (-20, 0.42), (200, 2.4), (60, 1.0)])
def test_the_search_finds_rotation_scale_and_shift(vessels, angle, zoom):
    values, valid = vessels
    middle = (SIZE - 1) / 2
    turned = cv2.getRotationMatrix2D((middle, middle), angle, zoom)
    moving_from_fixed = np.vstack([turned, [0, 0, 1]])
    moving_from_fixed[:2, 2] += 17, -11
    moved, shown = (
        cv2.warpAffine(x, moving_from_fixed[:2], values.shape[::-1])
        for x in (values, valid.astype(np.uint8))
    )
    fractions: list[float] = []
    stages = Stages(lambda _stage, fraction: fractions.append(fraction))
    maps = SearchedMap(values, valid), SearchedMap(moved, shown > 0)
    found = searched(*maps, stages, at_most=2)
    assert missed(found[0].moving_from_fixed, moving_from_fixed, valid) < 0.025 * SIZE
    assert found[0].score > 1.5 * found[1].score
    assert fractions == sorted(fractions)
    near = scales_near(found[0], *maps)
    assert 3 < len(near) < 8
    back = searched(*maps[::-1], Stages(), 1, near)[0].moving_from_fixed
    assert missed(np.linalg.inv(back), moving_from_fixed, valid) < 0.025 * SIZE


def missed(found: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> float:
    """The largest distance in pixels of the fixed picture between where two (3, 3) maps lead,
    where the moving picture shows it."""
    points = np.argwhere(valid)[::500, ::-1].astype(float)
    points = np.column_stack([points, np.ones(len(points))]).T
    there = (truth @ points)[:2]
    seen = ((there > 0) & (there < SIZE)).all(axis=0)
    error = ((found - truth) @ points)[:2, seen] / np.sqrt(np.linalg.det(truth[:2, :2]))
    return float(np.hypot(*error).max())


def test_refinement_recovers_a_known_bend(vessels):
    values, valid = vessels
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    u, v = (x - SIZE / 2) / SIZE, (y - SIZE / 2) / SIZE
    bend_x, bend_y = 2.5 + 8 * u * u - 5 * v * v, -1.5 + 6 * u * v
    fixed = resampled(values, x + bend_x, y + bend_y)
    factors = (2, 1)
    found = refined_quadratic(
        np.eye(3), pyramid(fixed, valid, factors), pyramid(values, valid, factors)
    )
    points = np.argwhere(valid)[::100, ::-1]
    truth = points + np.stack([bend_x, bend_y], axis=-1)[points[:, 1], points[:, 0]]
    assert np.linalg.norm(found(points.astype(float)) - truth, axis=1).mean() < 0.1


def test_a_quadratic_map_continues_as_an_affine_one():
    coefficients = np.array([[10, 100, 0, 5, 0, 3], [20, 0, 100, 0, -4, 6]], float)
    mapped = QuadraticMap(coefficients, np.array([100.0, 100.0]), 100.0)
    far = np.array([[100.0 + 1e4, 100.0], [100.0 - 2e4, 100.0 + 3e4]])
    assert np.abs(mapped.bend(far)).max() < 12
    np.testing.assert_allclose(mapped(far) - mapped.bend(far) @ np.eye(2),
                               far @ mapped.affine[:2, :2].T + mapped.affine[:2, 2])


def test_tracking_recovers_a_smooth_deformation_without_folds(vessels):
    values, valid = vessels
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    waves = 2 * np.sin(2 * np.pi * y / SIZE), 2 * np.cos(2 * np.pi * x / SIZE)
    fixed = resampled(values, x + waves[0], y + waves[1])
    levels = pyramid(fixed, valid, (1,))[0], pyramid(values, valid, (1,))[0]
    none = QuadraticMap.from_affine(np.eye(3), np.full(2, SIZE / 2), SIZE / 2)
    displacement = dense_displacement(*levels, none)
    strong = np.argwhere((fixed > 0.6) & valid)[::20, ::-1]
    found = displacement(strong.astype(float)) - strong
    truth = np.stack(waves, axis=-1)[strong[:, 1], strong[:, 0]]
    assert np.linalg.norm(found - truth, axis=1).mean() < 0.5
    down, across = np.gradient(displacement.vectors, displacement.factor, axis=(0, 1))
    jacobian = (1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0]
    assert jacobian.min() > 0.25


@pytest.mark.parametrize("value", [0, 130])
def test_a_blank_picture_is_refused_in_a_sentence(value):
    blank = Image(np.full((3, 1, 50, 60), value, np.uint8), Grid.of_picture(60, 50))
    with pytest.raises(RegistrationError, match=r"moving picture is blank.*\.$"):
        retina_picture(blank, "moving", 300)
