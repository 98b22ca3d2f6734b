"""A painted-over third leaves a pair wrong or in doubt; under a mask it is right and accepted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from retreg.geometry import Grid
from retreg.image import Image
from retreg.masks import counting
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg.quality import ACCEPT, FAIL
from retreg.transforms import Affine
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.registration.engine import register
from retreg_server.registration.numerics.spaces import canonical, isotropic
from retreg_server.registration.preprocessing.foreground import WHOLE
from retreg_server.registration.quality.retina import PictureQuality
from retreg_server.registration.quality.volume import VolumeQuality
from retreg_server.serving.workers.model_worker import halved


@cache
def an_eye() -> PhantomPair:
    return make_fundus_pair(2, size=400, rotation_deg=120, scale=0.95)


@cache
def a_head() -> PhantomPair:
    return make_head_pair(7, spacing_mm=4.0, rotation_deg=20)


def another_eye(image: Image) -> np.ndarray:
    return make_fundus_pair(77, size=400, rotation_deg=0).fixed.array[: len(image.array)]


def noise(image: Image) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, image.array.shape).astype(np.uint8)


def metal(image: Image) -> np.ndarray:
    return np.full_like(image.array, 1.5 * image.array.max())


def painted(image: Image, paint, axis: int) -> tuple[Image, Image]:
    """The image with its first third painted over, and the mask that leaves that out."""
    mask = np.ones((1, *image.grid.shape), np.uint8)
    third = [slice(None)] * 4
    third[axis] = slice(image.array.shape[axis] // 3)
    mask[tuple(third)] = 0
    return replace(image, array=np.where(mask, image.array, paint(image))), Image(mask, image.grid)


def registered(pair: PhantomPair, masked: bool) -> RegistrationResult:
    images = []
    for role in ("fixed", "moving"):
        image, mask = painted(getattr(pair, role), another_eye, 3)
        images.append(counting(image, mask, role) if masked else image)
    return register(RegistrationRequest(*images, "auto-fundus", {"transform": "affine"}))


def test_a_pair_with_a_painted_third_is_right_under_a_mask_and_not_accepted_without():
    pair = an_eye()
    without, result = (registered(pair, masked) for masked in (False, True))
    assert without.quality.verdict != "accept"
    assert result.quality.verdict == "accept"
    missed = result.transform(pair.landmarks) - pair.truth(pair.landmarks)
    assert np.linalg.norm(missed, axis=1).mean() < 2.0
    assert result.provenance["counted"]["fixed"] == pytest.approx(2 / 3, abs=0.01)


MEASURED = [(an_eye, PictureQuality, noise, 3), (a_head, VolumeQuality, metal, 1)]


@pytest.mark.parametrize(("make", "measure", "paint", "axis"), MEASURED)
def test_the_verdict_does_not_look_where_a_mask_is_0(make, measure, paint, axis):
    pair = make()
    painted_over = [painted(each, paint, axis) for each in (pair.fixed, pair.moving)]
    counted = [counting(*each, "fixed") for each in painted_over]
    without = measure(*(image for image, _ in painted_over)).measure(pair.truth)
    numbers = measure(*counted).measure(pair.truth)
    assert numbers["agreement"] > max(ACCEPT.agreement, without["agreement"] + 0.2)
    assert numbers["blocks"] > ACCEPT.blocks
    middle = np.eye(4)
    middle[:2, 3] = 9.0
    assert measure(*counted).measure(Affine(middle))["agreement"] < FAIL.agreement


def test_a_mask_turns_with_the_axes_of_its_volume():
    array = np.random.default_rng(0).random((1, 6, 8, 10)).astype(np.float32)
    matrix = np.array([[0, 0, 3.0, 0], [-2.0, 0, 0, 5], [0, 2.0, 0, 1], [0, 0, 0, 1]])
    image = Image(array, Grid((10, 8, 6), matrix), counted=array[0] > 0.5)
    volume = canonical(image)
    assert ((volume.tensor > 0.5) == (volume.counted > 0.5)).all()


def test_what_does_not_count_has_no_part_in_the_voxels_around_it():
    array = np.ones((1, 24, 24, 24), np.float32)
    array[:, :9] = 1000
    image = Image(array, Grid((24, 24, 24), np.eye(4)), counted=array[0] < 500)
    grey, share = isotropic(canonical(image), 3.5, WHOLE, 1).tensor[0]
    assert np.allclose(grey[share > 0.01], 1, atol=1e-3)
    assert 0.4 < share.mean() < 0.7


def test_half_an_image_has_half_its_mask():
    array = np.random.default_rng(0).random((1, 6, 8, 10)).astype(np.float32)
    half = halved(Image(array, Grid((10, 8, 6), np.eye(4)), counted=array[0] > 0.5))
    assert (half.counted == (half.array[0] > 0.5)).all()
