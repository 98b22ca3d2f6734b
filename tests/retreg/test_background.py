"""What a resampled image holds where nothing was scanned."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.background import background
from retreg.errors import OptionError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField

GRID = Grid((40, 36, 20), np.eye(4))


def shift(x: float) -> Affine:
    matrix = np.eye(4)
    matrix[0, 3] = x
    return Affine(matrix)


def a_head(air: float, dtype: str = "f4", noise: float = 0.0, channels: int = 1) -> Image:
    random = np.random.default_rng(3)
    array = air + noise * random.normal(size=(channels, *GRID.shape))
    array[:, 5:15, 10:30, 10:30] = random.uniform(300, 900, (channels, 10, 20, 20))
    return Image(array.astype(dtype), GRID)


@pytest.mark.parametrize(("air", "dtype"), [(-1024, "i2"), (-1000, "i4"), (0, "u2"), (12, "u1"),
                                            (-2.0, "f4"), (-0.75, "f8"), (50, "i2")])  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_beyond_the_moving_image_is_its_air(air, dtype, channels):
    image = a_head(air, dtype, channels=channels)
    for transform in (shift(15), Chain((shift(7), shift(8)))):
        warped = resample(image, transform, GRID).array
        assert warped.dtype == image.array.dtype
        np.testing.assert_array_equal(warped[..., -15:], image.array.dtype.type(air))
        np.testing.assert_allclose(warped[..., :-15], image.array[..., 15:], rtol=1e-6)


def test_beyond_a_deformed_image_is_its_air_too():
    field = DisplacementField(np.full((3, *GRID.shape), 15.0), GRID)
    warped = resample(a_head(-1024, "i2"), field, GRID).array
    assert (warped[..., -14:] == -1024).all()


@pytest.mark.parametrize(("air", "noise"), [(-1000, 15), (20, 4), (-2, 0.05)])
def test_noise_of_the_air_is_replaced_by_its_level(air, noise):
    assert background(a_head(air, noise=noise)) == pytest.approx(air, abs=noise)


def test_tissue_that_touches_the_border_is_not_the_background():
    image = a_head(-1024, noise=10)
    image.array[:, :, :, :10] = np.random.default_rng(1).uniform(0, 900, (1, 20, 36, 10))
    assert background(image) == pytest.approx(-1024, abs=10)


def test_padding_is_the_background_of_a_padded_image():
    image = a_head(0, "i2", noise=10)
    _, j, i = np.indices(GRID.shape)
    image.array[0, (j - 18) ** 2 + (i - 20) ** 2 > 300] = -2000
    assert background(image) == -2000


def test_what_is_no_number_does_not_count():
    image = a_head(-3)
    image.array[:, 0] = np.nan
    assert background(image) == -3
    assert background(Image(np.full((1, *GRID.shape), np.nan), GRID)) == 0


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_pictures_are_black_around(dtype):
    grid = Grid.of_picture(30, 20)
    image = Image(np.full((3, 1, 20, 30), 90, dtype), grid)
    warped = resample(image, shift(10), grid).array
    assert (warped[..., -10:] == 0).all()
    assert (warped[..., :-10] == 90).all()


def test_labels_are_0_outside():
    image = Image(np.full((1, *GRID.shape), 4, np.uint8), GRID)
    assert set(np.unique(resample(image, shift(15), GRID, nearest=True).array)) == {0, 4}


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize(("fill", "dtype"), [(-1024, "i2"), (0, "i2"), (7, "u1"), (-3.5, "f4"),
                                             (float("nan"), "f4")])  # fmt: skip
def test_a_chosen_value_is_taken(fill, dtype, nearest):
    image = Image(np.full((1, *GRID.shape), 100, dtype), GRID)
    warped = resample(image, shift(15), GRID, nearest, fill).array
    np.testing.assert_array_equal(warped[..., -15:], np.dtype(dtype).type(fill))


@pytest.mark.parametrize(("fill", "dtype", "words"), [(-1, "u1", "0 to 255"), (256, "u1", "255"),
                                                      (40000, "i2", "uint|int16"),
                                                      (float("nan"), "i2", "int16")])  # fmt: skip
def test_a_value_that_the_voxels_cannot_hold_is_refused(fill, dtype, words):
    image = Image(np.full((1, *GRID.shape), 100, dtype), GRID)
    with pytest.raises(OptionError, match=words):
        resample(image, shift(15), GRID, fill=fill)
