"""Where nothing was scanned, whatever stands there: it is told from air and from tissue."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.numerics.padding import without_padding
from retreg_server.registration.numerics.spaces import canonical
from retreg_server.registration.preprocessing.foreground import find_foreground
from retreg_server.reporting.views import shown, views

VALUES = [-32768.0, -2000.0, -1e6, 32767.0, 65535.0, 4095.0, np.nan, np.inf, -np.inf, 3e38, -3e38]


@pytest.fixture(scope="module")
def head() -> Image:
    return make_head_pair(3, spacing_mm=4.0, rotation_deg=40.0).moving


def outside_circle(shape: tuple[int, ...]) -> np.ndarray:
    k, j, i = np.indices(shape)
    middle_j, middle_i = (shape[1] - 1) / 2, (shape[2] - 1) / 2
    away = (j - middle_j) ** 2 + (i - middle_i) ** 2 + 0 * k
    return away > min(middle_j, middle_i) ** 2


def padded(image: Image, value: float, where: np.ndarray) -> Image:
    array = image.array.astype(np.float32)
    array[:, where] = value
    return Image(array, image.grid)


@pytest.mark.parametrize(
    ("value", "air", "shape"),
    [
        *((value, 0.0, "circle") for value in VALUES),
        *((value, air, "circle") for value in (-32768.0, 65535.0) for air in (-1024.0, 500.0)),
        *((value, 0.0, shape) for value in (-32768.0, 65535.0) for shape in ("slab", "corner")),
    ],
)
def test_the_head_is_found_as_without_padding(head, value, air, shape):
    image = Image(head.array + np.float32(air), head.grid)
    where = outside_circle(image.array.shape[1:])
    if shape == "slab":
        where = np.zeros_like(where)
        where[:3], where[-2:] = True, True
    if shape == "corner":
        where &= np.indices(where.shape).sum(axis=0) < sum(where.shape) / 2
    plain = find_foreground(canonical(image), "moving")
    found = find_foreground(canonical(padded(image, value, where)), "moving")
    assert np.linalg.norm(found.centroid - plain.centroid) < 8
    assert found.volume_mm3 == pytest.approx(plain.volume_mm3, rel=0.15)
    assert found.bright == pytest.approx(plain.bright, rel=0.15)


@pytest.mark.parametrize("pair", [(-32768, 32767), (-2000, -32768), (np.nan, -32768)])
def test_two_kinds_of_padding_are_both_told_from_the_head(head, pair):
    where = outside_circle(head.array.shape[1:])
    upper = where & (np.indices(where.shape)[0] > where.shape[0] / 2)
    image = padded(padded(head, pair[0], where), pair[1], upper)
    plain = find_foreground(canonical(head), "moving")
    found = find_foreground(canonical(image), "moving")
    assert found.volume_mm3 == pytest.approx(plain.volume_mm3, rel=0.15)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_integers_are_treated_as_numbers_with_a_point(head, dtype):
    where = outside_circle(head.array.shape[1:])
    array = head.array.astype(dtype)
    array[:, where] = -32768
    found = find_foreground(canonical(Image(array, head.grid)), "moving")
    plain = find_foreground(canonical(head), "moving")
    assert found.volume_mm3 == pytest.approx(plain.volume_mm3, rel=0.15)


def unchanged(values: np.ndarray) -> bool:
    values = values.astype(np.float32)
    return without_padding(values, np.zeros(values.shape, bool)) is values


def test_what_is_no_padding_is_left_alone(head):
    values = head.array[0]
    assert unchanged(values)
    assert unchanged(np.where(outside_circle(values.shape), 0, values))  # air set to 0
    assert unchanged(np.where(outside_circle(values.shape), 0, values + 300))  # stripped
    assert unchanged(np.minimum(values, np.percentile(values, 97)))  # saturated
    assert unchanged((values > 300).astype(float))  # a mask
    assert unchanged(np.full((8, 8, 8), 7.0))
    one_hot = values.copy()
    one_hot[3, 4, 5] = 32767
    assert unchanged(one_hot)


def test_a_bare_brain_of_narrow_contrast_stays_apart_from_its_surroundings(head):
    inside = ~outside_circle(head.array.shape[1:])
    brain = np.where(inside, 5000 + 0.4 * head.array[0], 0).astype(np.float32)
    assert unchanged(brain)
    found = without_padding(np.where(inside, brain, -32768), np.zeros(brain.shape, bool))
    np.testing.assert_array_equal(found[inside], brain[inside])
    assert found[~inside].max() < brain[inside].min() + 0.15 * np.ptp(brain[inside])


def test_a_volume_without_any_number_is_left_as_it_is():
    nothing = np.zeros((8, 8, 8), np.float32)
    assert without_padding(nothing, np.ones(nothing.shape, bool)) is nothing




@pytest.mark.parametrize("value", [-32768.0, 65535.0])
def test_a_padded_volume_is_shown_with_the_contrast_of_the_head(head, value):
    where = outside_circle(head.array.shape[1:])
    view = views(head.grid)[0]
    plain = shown(head, Affine.identity(), view)
    found = shown(padded(head, value, where), Affine.identity(), view)
    middle = slice(view.size[1] // 3, 2 * view.size[1] // 3)
    assert found[middle, middle].std() == pytest.approx(plain[middle, middle].std(), rel=0.2)


@pytest.mark.parametrize("value", [-32768.0, -10000.0])
def test_the_rim_of_interpolated_padding_is_padding_too(head, value):
    image = padded(head, value, outside_circle(head.array.shape[1:]))
    blurred = Image(ndimage.gaussian_filter(image.array, (0, 0.6, 0.6, 0.6)), head.grid)
    plain = find_foreground(canonical(head), "moving")
    found = find_foreground(canonical(blurred), "moving")
    assert found.volume_mm3 == pytest.approx(plain.volume_mm3, rel=0.2)
    assert found.bright == pytest.approx(plain.bright, rel=0.2)
