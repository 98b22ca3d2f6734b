"""Masks of any kind and on any grid say which voxels of an image count."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Picture

from retreg import wire
from retreg.errors import GeometryError, InputError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.masks import counting, share_counted

RIGHT_HALF = np.arange(40) >= 20


def a_picture(grid=None, channels=3):
    grid = grid or Grid.of_picture(40, 30)
    return Image(np.full((channels, *grid.shape), 7, np.uint8), grid)


def drawn(shape=(30, 40), value=255, channels=1):
    """A mask whose right half counts."""
    array = np.zeros((channels, 1, *shape), np.uint8)
    array[..., shape[1] // 2 :] = value
    return Image(array, Grid.of_picture(shape[1], shape[0]))


def opaque(mask):
    """With a channel that says that every pixel is opaque."""
    return Image(np.concatenate([mask.array, np.full_like(mask.array[:1], 255)]), mask.grid)


def compressed(mask):
    """As JPEG leaves it: nearly black is not black."""
    file = BytesIO()
    rng = np.random.default_rng(0)
    noisy = np.clip(mask.array[0, 0] + rng.normal(0, 12, mask.array.shape[2:]), 0, 255)
    Picture.fromarray(noisy.astype(np.uint8)).save(file, "JPEG", quality=30)
    return Image(np.asarray(Picture.open(file))[None, None], mask.grid)


@pytest.mark.parametrize(
    "mask",
    [
        drawn(),
        drawn(value=1),
        drawn(channels=3),
        opaque(drawn()),
        opaque(drawn(channels=3)),
        compressed(drawn()),
        drawn((15, 20)),
        drawn((300, 400)),
    ],
)
def test_what_is_not_0_in_a_mask_counts_whatever_its_colours_and_size(mask):
    counted = counting(a_picture(), mask, "fixed").counted
    assert (counted == RIGHT_HALF).all()


def test_a_mask_lies_on_its_picture_wherever_that_lies():
    matrix = np.diag([0.01, 0.01, 1.0, 1.0])
    matrix[:3, 3] = 5, -3, 0
    image = a_picture(Grid((40, 30, 1), matrix))
    assert (counting(image, drawn(), "fixed").counted == RIGHT_HALF).all()


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_the_mask_of_a_volume_is_found_by_its_place_in_the_world(flip):
    image = Image(np.zeros((1, 8, 8, 8), np.float32), Grid((8, 8, 8), np.diag([2.0, 2, 2, 1])))
    matrix = np.diag([flip, 1.0, 1.0, 1.0])
    matrix[0, 3] = 3.0 if flip > 0 else 10.0
    mask = Image(np.ones((1, 16, 16, 8), np.int16), Grid((8, 16, 16), matrix))
    counted = counting(image, mask, "moving").counted
    inside = (2 * np.arange(8) >= 3) & (2 * np.arange(8) <= 10)
    assert (counted == inside).all()


VOLUME = Image(np.ones((1, 8, 8, 8), np.uint8), Grid((8, 8, 8), np.diag([2.0, 2, 2, 1])))
ELSEWHERE = np.diag([2.0, 2.0, 2.0, 1.0]) + 500 * np.eye(4, 4, 3)


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (a_picture(), drawn(value=0), "leaves nothing"),
        (a_picture(), VOLUME, "picture"),
        (VOLUME, drawn(), "volume"),
        (a_picture(), drawn((40, 40)), "40 x 30"),
        (VOLUME, Image(VOLUME.array, Grid((8, 8, 8), ELSEWHERE)), "leaves nothing"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_in_words(image, mask, words):
    with pytest.raises(InputError, match=f"The moving mask.*{words}"):
        counting(image, mask, "moving")


def test_a_mask_of_another_shape_cannot_be_in_an_image():
    with pytest.raises(GeometryError, match="mask"):
        Image(VOLUME.array, VOLUME.grid, counted=np.ones((8, 8, 7), bool))


@pytest.mark.parametrize("encoding", wire.ENCODINGS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_a_mask_travels_with_its_image(encoding, dtype):
    rng = np.random.default_rng(1)
    grid = Grid((7, 5, 3), np.eye(4))
    array = rng.integers(0, 9, (1, *grid.shape)).astype(dtype)
    image = Image(array, grid, counted=rng.random(grid.shape) > 0.3)
    text, body = wire.encode_image(image, encoding)
    header = wire.decode_header(text, 10**6)
    received = wire.decode_image(header, body)
    assert (received.array == image.array).all()
    assert (received.counted == image.counted).all()
    assert share_counted(received) == image.counted.mean()
    with pytest.raises(InputError):
        wire.decode_image(header, body[:-1])


def test_a_mask_changes_the_address_of_an_image_and_its_absence_does_not():
    plain = Image(VOLUME.array, VOLUME.grid)
    masked = Image(VOLUME.array, VOLUME.grid, counted=VOLUME.array[0] > 0)
    addresses = {wire.image_address(*wire.encode_image(each)) for each in (plain, masked, VOLUME)}
    assert len(addresses) == 2
    assert "counted" not in wire.image_header(plain)
