"""Sizes of voxels that no head has, and slabs: the same result, or one sentence."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from retreg.errors import InputError, RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationRequest, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.odd_images import odd_image
from retreg_server.registration import engine
from retreg_server.registration.numerics.common_scale import CommonScale
from retreg_server.registration.numerics.spaces import bounded_spacing, canonical, isotropic
from retreg_server.registration.preprocessing.foreground import WHOLE, find_foreground
from retreg_server.registration.quality import volume as volume_quality
from retreg_server.registration.registry import default_model
from retreg_server.registration.subject import SUBJECTS
from retreg_server.registration.volume import global_alignment, volume_pair


def resized(image: Image, factor: float) -> Image:
    scale = np.diag([factor, factor, factor, 1.0])
    return Image(image.array, Grid(image.grid.size, scale @ image.grid.world_from_index))


def cut(image: Image, axis: int, first: int, slices: int, step: int) -> Image:
    """Slices of the mean of step voxels each along an axis (i, j, k)."""
    part = np.take(image.array, range(first, first + slices * step), axis=3 - axis)
    shape = list(part.shape)
    shape[3 - axis : 4 - axis] = [slices, step]
    thick = part.reshape(shape).mean(axis=4 - axis).astype(np.float32)
    matrix = image.grid.world_from_index.copy()
    matrix[:3, 3] += matrix[:3, axis] * (first + (step - 1) / 2)
    matrix[:3, axis] *= step
    return Image(thick, Grid(thick.shape[:0:-1], matrix))


def scale_of(fixed: Image, moving: Image) -> CommonScale:
    return SUBJECTS["head"].common_scale({"fixed": fixed, "moving": moving})


@pytest.fixture(scope="module")
def pair():
    return make_head_pair(3, spacing_mm=6.0, rotation_deg=8.0)


@pytest.fixture
def short_search(monkeypatch):
    search = {"ROTATIONS": 30, "CLIMBERS": 2, "COPIES": 2, "COARSE_POINTS": 500}
    trust = {"CLEAR_MARGIN": -1.0, "SAME_PLACE_MM": 1e9, "FINE_POINTS": 500}  # no network
    for name, value in {**search, **trust}.items():
        monkeypatch.setattr(global_alignment, name, value)
    monkeypatch.setattr(volume_pair, "FINE_VOXELS", 48)
    monkeypatch.setattr(volume_pair, "THROUGH", 8)
    monkeypatch.setattr(volume_quality, "SPACING", 7.0)


def test_an_ordinary_head_stays_as_it_is(pair):
    scale = scale_of(pair.fixed, pair.moving)
    assert scale.factor == 1
    assert scale.enlarged(pair.fixed) is pair.fixed
    assert not scale.notes


@pytest.mark.usefixtures("short_search")
def test_the_verdict_and_the_relative_result_are_the_same_at_every_size(pair):
    found, factors = [], (0.001, 20.0)
    for factor in factors:
        fixed, moving = resized(pair.fixed, factor), resized(pair.moving, factor)
        result = engine.register(RegistrationRequest(fixed, moving, "auto-brain", {}))
        assert any("voxel size" in note for note in result.notes)
        ends = result.fixed_keypoints.points, result.moving_keypoints.points
        np.testing.assert_allclose(result.transform(ends[0]), ends[1], atol=1e-5 * factor)
        found.append(result)
    places = [r.transform(pair.landmarks * f) / f for r, f in zip(found, factors, strict=True)]
    np.testing.assert_allclose(places[0], places[1], atol=1.0)
    assert found[0].quality.verdict == found[1].quality.verdict
    lengths = [
        r.quality.numbers["displacement_mean_mm"] / f for r, f in zip(found, factors, strict=True)
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.05)


def test_every_kind_of_transform_comes_back_to_the_world_of_the_images():
    scale = CommonScale(4.0, np.array([3.0, -20.0, 8.0]))
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 3))
    affine = Affine(np.array([[1, 0.1, 0, 5], [0, 1.1, 0, 2], [0, -0.1, 0.9, 1], [0, 0, 0, 1.0]]))
    field = DisplacementField(rng.normal(size=(3, 2, 3, 4)), Grid((4, 3, 2), np.eye(4)))
    spline = ThinPlateSpline(points, points + 0.3 * rng.normal(size=(30, 3)), 0.1)
    keypoints = Keypoints(points, np.ones(30), np.ones(30, bool))
    quality = Quality({"folding": 0.0, "inverse_consistency_p95_mm": 8.0}, "fail", "")
    seen = 5 * rng.normal(size=(20, 3))
    common = 4.0 * (seen - scale.origin)
    for transform in (affine, field, spline, Chain((field, affine))):
        result = RegistrationResult(transform, keypoints, keypoints, quality, {}, affine)
        back = scale.restored(result)
        np.testing.assert_allclose(
            4.0 * (back.transform(seen) - scale.origin), transform(common), atol=1e-8
        )
        assert back.quality.numbers["inverse_consistency_p95_mm"] == 2.0
        np.testing.assert_allclose(4.0 * (back.fixed_keypoints.points - scale.origin), points)


def test_the_size_does_not_change_what_is_said_of_a_stranger_in_a_group():
    scale = CommonScale(4.0, np.zeros(3))
    keypoints = Keypoints(np.zeros((1, 3)), np.ones(1), np.ones(1, bool))
    stranger = Quality({"agreement": 0.9}, "fail", "This image shows something else.")
    result = RegistrationResult(Affine.identity(), keypoints, keypoints, stranger, {})
    said = scale.restored(result).quality
    assert (said.verdict, said.reason) == ("fail", stranger.reason)


def test_an_image_that_shows_nothing_has_no_say(pair):
    nothing = Image(np.zeros_like(pair.fixed.array), pair.fixed.grid)
    small = resized(pair.moving, 0.1)
    factor = SUBJECTS["head"].common_scale({"1.": nothing, "2.": small}).factor
    assert factor == SUBJECTS["head"].common_scale({"2.": small}).factor > 1


@pytest.mark.parametrize("swapped", [False, True])
def test_a_head_and_a_mouse_are_refused_in_one_sentence(pair, swapped):
    images = [pair.fixed, resized(pair.moving, 0.05)]
    fixed, moving = images[::-1] if swapped else images
    with pytest.raises(InputError, match="voxel sizes"):
        engine.register(RegistrationRequest(fixed, moving, "auto-brain", {}))


@pytest.mark.parametrize("model", ["auto-brain", "keymorph-brain", "smoothproper-brain"])
@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 5, 5), (3, 200, 4), (100, 2, 1)])
def test_a_volume_of_a_few_voxels_is_refused(model, shape):
    image = Image(np.random.default_rng(0).random((1, *shape)), Grid(shape[::-1], np.eye(4)))
    if image.is_picture:
        image = Image(image.array.transpose(0, 3, 2, 1), Grid(shape, np.eye(4)))
    with pytest.raises(InputError, match="too few"):
        engine.register(RegistrationRequest(image, image, model, {}))


@pytest.mark.parametrize("spacing", [1e-12, 1e-3, 1.0])
@pytest.mark.parametrize("extent", [(1.0, 1.0, 1.0), (1e9, 1.0, 1e-9), (1e3, 1e3, 1e3)])
def test_no_lattice_takes_more_voxels_than_it_may(spacing, extent):
    bounded = bounded_spacing(np.array(extent), spacing, 1000)
    assert np.ceil(np.array(extent) / bounded).prod() <= 1000
    assert bounded >= spacing
    assert bounded_spacing(np.ones(3), 0.2, 1000) == 0.2


def test_a_volume_is_resampled_within_bounds_whatever_its_header_says():
    array = np.zeros((1, 4, 5, 6), np.uint8)
    source = canonical(Image(array, Grid((6, 5, 4), np.diag([1e6, 1e6, 1e6, 1.0]))))
    assert isotropic(source, 1e-3, WHOLE, 1).tensor.numel() < 2 * 7_000_000


@pytest.mark.parametrize("axis", [0, 1])
def test_a_volume_of_one_slice_with_reversed_axes_is_read(axis):
    size = [6, 5, 4]
    size[axis] = 1
    array = np.arange(np.prod(size), dtype=np.float32).reshape(1, *size[::-1])
    volume = canonical(Image(array, Grid(tuple(size), np.diag([-1.0, -1.0, -1.0, 1.0]))))
    np.testing.assert_array_equal(volume.tensor[0, 0].numpy(), array[0, ::-1, ::-1, ::-1])


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize(("axis", "slices"), [(2, 5), (1, 4)])
def test_a_slab_is_found_where_it_lies_or_said_to_be_thin(pair, axis, slices):
    first = pair.moving.grid.size[axis] // 2 - slices
    slab = cut(pair.moving, axis, first, slices, 2)
    assert find_foreground(canonical(slab), "moving").is_slab
    request = RegistrationRequest(pair.fixed, slab, "auto-brain", {"transform": "rigid"})
    found = engine.register(request)
    error = np.linalg.norm(found.transform(pair.landmarks) - pair.truth(pair.landmarks), axis=1)
    right = found.quality.verdict == "accept" and error.mean() < 6.0
    assert right or "thick" in found.quality.reason


@pytest.mark.parametrize("slices", [1, 2])
def test_two_slices_are_refused_for_their_thickness(pair, slices):
    slab = cut(pair.moving, 1, 18, slices, 1)
    request = RegistrationRequest(pair.fixed, slab, "auto-brain", {})
    with pytest.raises(RegistrationError, match=r"about \d+% as thick as it is long"):
        engine.register(request)


@pytest.mark.parametrize(("axis", "slices"), [(2, 3), (1, 2), (0, 4)])
def test_a_slab_is_not_said_to_be_thicker_than_its_image(pair, axis, slices):
    slab = cut(pair.moving, axis, 18, slices, 1)
    found = volume_quality.VolumeQuality(slab, slab).measure(Affine.identity())["slab_mm"]
    assert 0 < found <= slices * pair.moving.grid.spacing[axis] + 1e-6


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("seed", [*range(0, 180, 5), 260])
def test_odd_images_end_in_a_result_or_a_sentence(seed):
    _, image = odd_image(seed)
    with suppress(InputError, RegistrationError):  # whatever else is raised is a mistake
        model = default_model(image, image)
        found = engine.register(RegistrationRequest(image, image, model, {}))
        assert found.quality.verdict in ("accept", "check", "fail")
