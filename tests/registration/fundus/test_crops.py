"""Parts of pictures against whole ones, and pictures that share little: right and accepted."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.geometry import Grid
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg.resample import resample
from retreg.transforms import Affine
from retreg_server.evaluation.cases import Pair
from retreg_server.evaluation.crops import part_of_pair, two_sides
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.engine import register
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps
from retreg_server.registration.quality.retina import PictureQuality


def an_eye(seed: int, moving: str = "colour") -> Pair:
    made = make_fundus_pair(seed, size=640, rotation_deg=4, elastic_px=0, moving=moving)
    return Pair(made.fixed, made.moving, made.landmarks, made.truth(made.landmarks))


def registered(pair: Pair) -> RegistrationResult:
    return register(RegistrationRequest(pair.fixed, pair.moving, "auto-fundus", {}))


def error_of(result: RegistrationResult, pair: Pair) -> float:
    """Median in pixels of the whole picture."""
    mapped = pair.original_from_moving(result.transform(pair.fixed_points))
    return float(np.median(np.linalg.norm(mapped - pair.original_points, axis=1)))


@pytest.mark.parametrize(
    ("seed", "moving", "share", "turned"),
    [(3, "colour", 1 / 3, False), (5, "redfree", 0.4, True), (2, "angiography", 1 / 2, True)],
)
def test_a_part_of_a_picture_finds_its_place_in_another_one(seed, moving, share, turned):
    pair = part_of_pair(an_eye(seed, moving), f"eye {seed}", share, turned)
    assert len(pair.fixed_points) >= 3
    result = registered(pair)
    assert error_of(result, pair) < 3
    assert result.quality.verdict == "accept"


def test_pictures_that_share_a_fifth_find_each_other():
    pair = two_sides(an_eye(3), "sides")
    result = registered(pair)
    assert error_of(result, pair) < 3
    assert result.quality.numbers["overlap"] < 0.3
    assert result.quality.verdict == "accept"


def test_a_part_of_another_eye_is_not_accepted():
    pair = part_of_pair(Pair(an_eye(3).fixed, an_eye(8).moving), "another eye", 1 / 3, False)
    assert registered(pair).quality.verdict != "accept"


@pytest.mark.parametrize("share", [1 / 3, 1 / 2])
def test_a_part_is_judged_with_vessels_as_wide_as_those_of_the_whole(share):
    made = make_fundus_pair(3, size=640, rotation_deg=4, elastic_px=0, moving="colour")
    whole_from_part = np.diag([share, share, 1.0, 1.0])
    whole_from_part[:2, 3] = 200, 180
    part = resample(made.moving, Affine(whole_from_part), Grid.of_picture(640, 640))
    right = Affine(np.linalg.inv(whole_from_part) @ made.truth.moving_from_fixed)
    aside = np.eye(4)
    aside[0, 3] = 40.0
    beside = Affine(right.moving_from_fixed @ aside)
    for measure, there, elsewhere in (
        (PictureQuality(made.fixed, part), right, beside),
        (PictureQuality(part, made.fixed), right.inverse, beside.inverse),
    ):
        measured = measure.measure(there)
        assert measured["agreement"] > 0.8
        assert measured["correlation"] > 0.5
        assert measured["blocks"] >= 15
        assert measured["overlap"] > 0.9
        assert measure.measure(elsewhere)["agreement"] < 0.4


def test_a_smaller_or_padded_picture_lies_where_it_was():
    picture = retina_picture(an_eye(3).fixed, "fixed", 300)
    height, width = picture.grey.shape
    corners = np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    small = picture.shrunk(1 / 3)
    low, high = np.array([-0.5, -0.5]), np.array(small.grey.shape[::-1]) - 0.5
    assert np.allclose(small.world(np.array([low, high])), picture.world(corners))
    padded = picture.padded(16)
    assert np.allclose(padded.world(corners + 16), picture.world(corners))
    assert padded.inside.sum() == picture.inside.sum()


@pytest.mark.parametrize("height", [2, 8, 30])
def test_a_strip_of_a_picture_is_shrunk_too(height):
    grey = np.random.default_rng(1).random((height, 768), np.float32)
    strip = Picture(grey, np.ones(grey.shape, bool), np.eye(4)).shrunk(1 / 3)
    assert strip.grey.shape == (max(round(height / 3), 1), 256)
    maps = vessel_maps(strip.grey, strip.inside, 768)
    assert maps.best.shape == strip.grey.shape
