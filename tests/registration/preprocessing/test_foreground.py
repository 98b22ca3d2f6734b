"""Finding the object: synthetic heads whose place and size are known."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.registration.numerics.spaces import canonical
from retreg_server.registration.preprocessing.foreground import Foreground, find_foreground

SPACING = 4.0
ORIGIN = np.array([-400.0, 90.0, 12.0])


def found(array: np.ndarray) -> Foreground:
    matrix = np.diag([SPACING] * 3 + [1.0])
    matrix[:3, 3] = ORIGIN
    return find_foreground(canonical(Image(array[None], Grid(array.shape[::-1], matrix))), "fixed")


def grid_mm() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    k, j, i = np.indices((56, 60, 64)) * SPACING
    return i + ORIGIN[0], j + ORIGIN[1], k + ORIGIN[2]


def ball(centre: np.ndarray, radius: float) -> np.ndarray:
    x, y, z = grid_mm()
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2


MIDDLE = ORIGIN + [126.0, 118.0, 130.0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 800.0), (-1000.0, 60.0), (900.0, 100.0)])
def test_a_ball_is_found_whatever_the_level_of_its_surroundings(low, high):
    noise = np.random.default_rng(0).normal(0, 0.02 * abs(high - low), (56, 60, 64))
    array = (np.where(ball(MIDDLE, 70), high, low) + noise).astype(np.float32)
    object_ = found(array)
    np.testing.assert_allclose(object_.core, MIDDLE, atol=3)
    assert object_.radius_mm == pytest.approx(70, abs=3)
    assert object_.background == pytest.approx(low, abs=0.1 * abs(high - low))


def test_a_neck_pulls_the_centroid_but_hardly_the_core():
    x, y, z = grid_mm()
    neck = ((x - MIDDLE[0]) ** 2 + (y - MIDDLE[1]) ** 2 < 40**2) & (z < MIDDLE[2])
    object_ = found((1000.0 * (ball(MIDDLE, 75) | neck)).astype(np.float32))
    pulled = np.linalg.norm(object_.centroid - MIDDLE)
    assert np.linalg.norm(object_.core - MIDDLE) < 0.5 * pulled


def test_dark_fluid_inside_belongs_to_the_object():
    array = 1000.0 * ball(MIDDLE, 70) - 950.0 * ball(MIDDLE + [10, 0, 0], 25)
    assert found(array.astype(np.float32)).radius_mm == pytest.approx(70, abs=3)


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_a_constant_volume_is_refused_with_a_sentence(level):
    with pytest.raises(RegistrationError, match=r"fixed image shows nothing to register.*\."):
        found(np.full((30, 30, 30), level, dtype=np.float32))


def test_a_speck_is_refused():
    with pytest.raises(RegistrationError):
        found((500.0 * ball(MIDDLE, 7)).astype(np.float32))


@pytest.mark.parametrize("size", [(30, 28, 26), (24, 40, 20)])
def test_a_block_without_air_around_it_is_all_foreground(size):
    """As a spine or a prostate in a small field of view: tissue touches every face."""
    coarse = np.random.default_rng(1).uniform(50, 900, [-(-n // 5) for n in size])
    array = np.kron(coarse, np.ones((5, 5, 5)))[tuple(slice(n) for n in size)]
    object_ = found(array.astype(np.float32))
    assert not object_.has_air
    assert object_.volume_mm3 == pytest.approx(np.prod(size) * SPACING**3, rel=0.1)
    assert (object_.passes > 0.8).all()


def test_a_head_that_is_cut_at_two_faces_ends_in_the_image_all_the_same():
    x, y, z = grid_mm()
    trunk = (x - MIDDLE[0]) ** 2 + (y - MIDDLE[1]) ** 2 < 70**2
    array = np.where(trunk, 400 + 3.0 * (z - ORIGIN[2]), 0.0)
    object_ = found(array.astype(np.float32))
    assert object_.has_air
    np.testing.assert_allclose(object_.passes, [0, 0, 0.9], atol=0.05)
