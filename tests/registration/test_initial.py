"""A given map narrows the search: near the truth the result is right, a wrong one is refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from retreg.errors import OptionError, RegistrationError
from retreg.files import write_transform
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.initial import initial_map
from retreg.messages import RegistrationRequest
from retreg.transforms import Affine
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.registration.engine import register


@cache
def an_eye() -> PhantomPair:
    return make_fundus_pair(2, size=400, rotation_deg=120, scale=0.95, elastic_px=0)


@cache
def a_head() -> PhantomPair:
    return make_head_pair(7, spacing_mm=5.0, rotation_deg=60, stretch=0.0)


def turned(pair: PhantomPair, degrees: float, shift: float) -> Affine:
    """The truth, followed by a turn about the middle of the moving image and a shift."""
    angle, middle = np.deg2rad(degrees), pair.moving.grid.centre
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    turn[0, 3] += shift
    return Affine(turn @ pair.truth.moving_from_fixed)


@pytest.mark.parametrize(
    ("make", "model", "degrees", "shift", "limit"),
    [
        (an_eye, "auto-fundus", 5, 15, 0.5),
        (a_head, "auto-volume", 15, 12, 0.7),
    ],
)
def test_near_the_truth_the_result_is_right(make, model, degrees, shift, limit):
    pair = make()
    initial = turned(pair, degrees, shift)
    request = RegistrationRequest(pair.fixed, pair.moving, model, {"transform": "affine"}, initial)
    result = register(request)
    assert result.quality.verdict == "accept"
    missed = result.transform(pair.landmarks) - pair.truth(pair.landmarks)
    assert np.linalg.norm(missed, axis=1).mean() < limit
    returned = result.backward(pair.truth(pair.landmarks)) - pair.landmarks
    assert np.linalg.norm(returned, axis=1).mean() < limit
    assert result.provenance["initial"] == initial.moving_from_fixed.tolist()


@pytest.mark.parametrize(("degrees", "shift"), [(90, 0), (0, 250)])
def test_a_wrong_one_is_never_accepted(degrees, shift):
    pair = an_eye()
    initial = turned(pair, degrees, shift)
    options = {"transform": "affine"}
    request = RegistrationRequest(pair.fixed, pair.moving, "auto-fundus", options, initial)
    assert register(request).quality.verdict != "accept"


def test_a_mirror_image_is_refused_in_words():
    pair, mirror = an_eye(), Affine(np.diag([-1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(RegistrationError, match="initial transform"):
        register(RegistrationRequest(pair.fixed, pair.moving, "auto-fundus", {}, mirror))


def test_a_model_that_cannot_be_led_says_so():
    pair = an_eye()
    request = RegistrationRequest(pair.fixed, pair.moving, "fundus-sift", {}, Affine.identity())
    with pytest.raises(OptionError, match="initial"):
        register(request)


def box(grid: Grid, corner: tuple[int, int, int]) -> Image:
    array = np.zeros((1, *grid.shape), np.int16)
    i, j, k = corner
    array[:, k : k + 4, j : j + 4, i : i + 4] = 100
    return Image(array, grid)


def test_the_words_say_what_lies_on_what(tmp_path):
    fixed = box(Grid((20, 20, 20), np.eye(4)), (2, 3, 4))
    matrix = np.diag([-2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = 7, 8, 9
    moving = box(Grid((20, 16, 12), matrix), (10, 8, 5))
    assert np.allclose(initial_map("identity", fixed, moving).moving_from_fixed, np.eye(4))
    centre = initial_map("centres", fixed, moving)(np.array([[3.5, 4.5, 5.5]]))
    assert np.allclose(centre, apply_matrix(matrix, np.array([[11.5, 9.5, 6.5]])))
    middle = initial_map("geometry", fixed, moving)(fixed.grid.centre[None])
    assert np.allclose(middle, moving.grid.centre)
    path = tmp_path / "start.tfm"
    write_transform(path, centre_map := initial_map("centres", fixed, moving), fixed.grid)
    read = initial_map(path, fixed, moving)
    assert np.allclose(read.moving_from_fixed, centre_map.moving_from_fixed)
