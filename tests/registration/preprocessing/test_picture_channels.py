"""Grey pictures that are stored as colour: whichever channels are used, the work sees them."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.preprocessing.retina_picture import retina_picture

SIZE = 256


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return make_fundus_pair(4, size=SIZE).fixed.array[1, 0]


def seen(channels: list[np.ndarray]) -> np.ndarray:
    image = Image(np.stack(channels)[:, None], Grid.of_picture(SIZE, SIZE))
    return retina_picture(image, "fixed", SIZE).grey


@pytest.mark.parametrize("shape", [(24, 24), (31, 300), (300, 9)])
def test_a_picture_too_small_to_show_vessels_is_refused(shape):
    noise = np.random.default_rng(0).integers(0, 255, (1, 1, *shape), np.uint8)
    image = Image(noise, Grid.of_picture(*shape[::-1]))
    sentence = f"{shape[1]} by {shape[0]} pixels shows too little"
    with pytest.raises(RegistrationError, match=sentence):
        retina_picture(image, "fixed", SIZE)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("opacity", [False, True])
def test_a_picture_is_the_same_whichever_channels_hold_it(grey, used, dtype, opacity):
    scale = {"u1": 1, "u2": 257, "i2": 100, "f4": 1 / 255}[dtype]
    stored = (grey.astype(float) * scale).astype(dtype)
    empty = np.zeros_like(stored)
    channels = [stored if n in used else empty for n in range(3)]
    channels += [np.full_like(stored, 255 * scale)] * opacity
    np.testing.assert_allclose(seen(channels), seen([stored]), atol=1e-6)


@pytest.mark.parametrize("level", [3, 128, 255])
@pytest.mark.parametrize("used", [0, 2])
def test_a_channel_of_one_value_is_unused_whatever_the_value(grey, used, level):
    channels = [np.full_like(grey, level if n == 1 else 0) for n in range(3)]
    channels[used] = grey
    np.testing.assert_array_equal(seen(channels), seen([grey]))


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_what_a_jpeg_smears_into_the_unused_channels_is_not_the_picture(grey, quality):
    colour = np.zeros((SIZE, SIZE, 3), np.uint8)
    colour[..., 0] = grey
    packed = io.BytesIO()
    PIL.Image.fromarray(colour).save(packed, "JPEG", quality=quality)
    decoded = np.asarray(PIL.Image.open(packed))
    found = seen(list(np.moveaxis(decoded, 2, 0)))
    rows, columns = np.minimum(found.shape, SIZE - 4)
    middle = found[4:rows, 4:columns].ravel(), seen([grey])[4:rows, 4:columns].ravel()
    assert np.corrcoef(*middle)[0, 1] > 0.95


@pytest.mark.parametrize("opacity", ["full", "of the field of view"])
def test_of_luminance_with_opacity_the_luminance_is_used(grey, opacity):
    alpha = np.where(grey > 10, 255, 0).astype(np.uint8) if opacity != "full" else grey * 0 + 255
    dim = (grey // 12).astype(np.uint8)
    np.testing.assert_array_equal(seen([dim, alpha]), seen([dim]))


def test_of_two_channels_the_second_is_used_where_the_first_is_empty(grey):
    np.testing.assert_array_equal(seen([np.zeros_like(grey), grey]), seen([grey]))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_picture_without_content_in_any_channel_is_blank(count):
    with pytest.raises(RegistrationError, match="blank"):
        seen([np.full((SIZE, SIZE), 7, np.uint8)] * count)
