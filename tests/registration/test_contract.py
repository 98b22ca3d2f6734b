"""What every registered model must do, whatever it is built of."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from retreg.errors import Cancelled, InputError, OptionError, RegistrationError
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.messages import RegistrationRequest, RegistrationResult
from retreg.wire import decode_result, dumps, encode_result, loads
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.registration import engine
from retreg_server.registration.registry import get_model, offered_models

# Errors in voxels of the fixed image. Two exposures of one picture differ by their noise, and a
# flipped picture is the same one, but resized from the other end.
IDENTITY, KNOWN = 0.1, 1.5
# Without a sub-pixel stage, other corners mean another fit; a network sees a flip otherwise.
GEOMETRY = {"fundus-sift": 1.0, "superpoint-fundus": 1.0, "superglue-fundus": 1.0}
OTHERS = 0.35
# A network that sees a picture in 192 pixels, and nothing after it: 1.2 % of the picture's width.
COARSE = {"keymorph-fundus": 4.0}

A_ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])


pytestmark = pytest.mark.usefixtures("equal_pairs_are_aligned_once")


@pytest.fixture(params=offered_models())
def model(request) -> str:
    return request.param


def a_pair(model: str) -> PhantomPair:
    """A pair that the model must solve: the baseline only sees one modality."""
    if "picture" in get_model(model).info.kinds:
        return a_fundus_pair("colour" if model == "fundus-sift" else "angiography")
    return a_head_pair()


@cache
def a_fundus_pair(moving: str) -> PhantomPair:
    return make_fundus_pair(3, size=512, rotation_deg=25, elastic_px=0, moving=moving)


@cache
def a_head_pair() -> PhantomPair:
    return make_head_pair(3, spacing_mm=3.0, rotation_deg=40)


def register(
    model: str, fixed: Image, moving: Image, family: str = "affine"
) -> RegistrationResult:
    return engine.register(RegistrationRequest(fixed, moving, model, {"transform": family}))


@cache
def the_result(model: str, family: str = "affine") -> RegistrationResult:
    pair = a_pair(model)
    return register(model, pair.fixed, pair.moving, family)


def voxels(image: Image) -> float:
    return float(image.grid.spacing[:2].max())


def mean_distance(a: np.ndarray, b: np.ndarray, image: Image) -> float:
    return float(np.linalg.norm(a - b, axis=1).mean() / voxels(image))


def test_an_image_with_itself_gives_the_identity(model):
    pair = a_pair(model)
    result = register(model, pair.fixed, pair.fixed)
    assert mean_distance(result.transform(pair.landmarks), pair.landmarks, pair.fixed) < IDENTITY
    assert result.quality.verdict == "accept"


def test_a_known_affine_is_recovered(model):
    pair, result = a_pair(model), the_result(model)
    error = mean_distance(result.transform(pair.landmarks), pair.truth(pair.landmarks), pair.fixed)
    assert error < KNOWN * COARSE.get(model, 1.0)
    assert result.quality.verdict == "accept"


def test_keypoints_match_in_number_and_follow_the_transform(model):
    result = the_result(model)
    fixed, moving = result.fixed_keypoints, result.moving_keypoints
    assert len(fixed) == len(moving) >= 10
    np.testing.assert_array_equal(fixed.inliers, moving.inliers)
    residual = np.linalg.norm(result.transform(fixed.points) - moving.points, axis=1)
    limit = 2 * COARSE.get(model, 1.0) * voxels(a_pair(model).fixed)
    assert np.median(residual[fixed.inliers]) < limit


def placed(image: Image, world: np.ndarray) -> Image:
    """The same voxels, moved in the world by a (4, 4) matrix."""
    return Image(image.array, Grid(image.grid.size, world @ image.grid.world_from_index))


def flipped(image: Image, axis: int) -> Image:
    """The same picture of the world, stored with one axis reversed."""
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, image.grid.size[axis] - 1
    grid = Grid(image.grid.size, image.grid.world_from_index @ matrix)
    return Image(np.flip(image.array, 3 - axis).copy(), grid)


@pytest.mark.parametrize("axis", [0, 1])
def test_storing_an_axis_backwards_changes_nothing_in_the_world(model, axis):
    pair = a_pair(model)
    result = register(model, flipped(pair.fixed, axis), pair.moving)
    expected = the_result(model).transform(pair.landmarks)
    error = mean_distance(result.transform(pair.landmarks), expected, pair.fixed)
    assert error < GEOMETRY.get(model, OTHERS)


def test_moving_both_images_in_the_world_moves_the_result_with_them(model):
    pair = a_pair(model)
    for_fixed, for_moving = np.eye(4), np.eye(4)
    for_fixed[:3, :3], for_fixed[:3, 3] = A_ROTATION, [200, -130, 45]
    for_moving[:3, :3], for_moving[:3, 3] = A_ROTATION.T, [-40, 10, 300]
    result = register(model, placed(pair.fixed, for_fixed), placed(pair.moving, for_moving))
    expected = apply_matrix(for_moving, the_result(model).transform(pair.landmarks))
    found = result.transform(apply_matrix(for_fixed, pair.landmarks))
    assert mean_distance(found, expected, pair.fixed) < GEOMETRY.get(model, OTHERS)


def deforms(model: str) -> bool:
    return "deformable" in get_model(model).info.produces


def test_a_deformable_result_is_near_the_truth_and_folds_nowhere(model):
    if not deforms(model):
        pytest.skip(f"{model} does not deform")
    pair, result = a_pair(model), the_result(model, "deformable")
    error = mean_distance(result.transform(pair.landmarks), pair.truth(pair.landmarks), pair.fixed)
    assert error < KNOWN
    assert result.quality.numbers["folding"] == 0
    assert result.quality.verdict == "accept"


def test_what_a_deformation_rests_on_is_judged_as_well(model):
    if not deforms(model):
        pytest.skip(f"{model} does not deform")
    numbers = the_result(model, "deformable").quality.numbers
    assert 0.25 <= numbers["agreement_undeformed"] <= 1


def test_a_deformable_result_follows_the_geometry_too(model):
    if not deforms(model):
        pytest.skip(f"{model} does not deform")
    pair = a_pair(model)
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = A_ROTATION, [200, -130, 45]
    fixed = placed(flipped(pair.fixed, 1), world)
    found = register(model, fixed, pair.moving, "deformable").transform
    expected = the_result(model, "deformable").transform(pair.landmarks)
    error = mean_distance(found(apply_matrix(world, pair.landmarks)), expected, pair.fixed)
    assert error < GEOMETRY.get(model, OTHERS)


def test_another_unit_of_length_scales_the_result(model):
    if "volume" in get_model(model).info.kinds:
        pytest.skip("a head has a known size in mm, so its scale is not free")
    pair = a_pair(model)
    shrink = np.diag([0.01, 0.01, 1, 1])
    result = register(model, placed(pair.fixed, shrink), placed(pair.moving, shrink))
    expected = the_result(model).transform(pair.landmarks)
    found = result.transform(apply_matrix(shrink, pair.landmarks)) * [100, 100, 1]
    assert mean_distance(found, expected, pair.fixed) < GEOMETRY.get(model, OTHERS)


def test_anisotropic_voxels_give_the_same_world_result(model):
    pair = a_pair(model)
    axis = 1 if pair.fixed.is_picture else 2
    half = np.eye(4)
    half[axis, axis], half[axis, 3] = 2, 0.5
    size = list(pair.fixed.grid.size)
    size[axis] //= 2
    index = [slice(None)] * 4
    index[3 - axis] = slice(0, 2 * size[axis])
    array = pair.fixed.array[tuple(index)].astype(np.float32)
    paired = np.split(array, size[axis], axis=3 - axis)
    array = np.concatenate([p.mean(axis=3 - axis, keepdims=True) for p in paired], axis=3 - axis)
    coarse = Image(array, Grid(tuple(size), pair.fixed.grid.world_from_index @ half))
    result = register(model, coarse, pair.moving)
    expected = the_result(model).transform(pair.landmarks)
    error = mean_distance(result.transform(pair.landmarks), expected, pair.fixed)
    assert error < COARSE.get(model, 1.0)


def test_the_result_survives_the_wire(model):
    pair, result = a_pair(model), the_result(model)
    arrived = decode_result(loads(dumps(encode_result(result))))
    np.testing.assert_allclose(
        arrived.transform(pair.landmarks), result.transform(pair.landmarks), atol=0.01
    )
    np.testing.assert_allclose(
        arrived.fixed_keypoints.points, result.fixed_keypoints.points, atol=1e-6
    )
    returned = result.backward(pair.landmarks)
    np.testing.assert_allclose(arrived.backward(pair.landmarks), returned, atol=0.01)
    assert arrived.quality.verdict == result.quality.verdict


def test_a_black_image_is_never_accepted(model):
    pair = a_pair(model)
    black = Image(np.zeros_like(pair.moving.array), pair.moving.grid)
    with pytest.raises(RegistrationError, match=r"moving.*\.$"):
        register(model, pair.fixed, black)
    with pytest.raises(RegistrationError, match=r"fixed.*\.$"):
        register(model, black, pair.moving)


def test_noise_is_never_accepted(model):
    pair = a_pair(model)
    values = np.random.default_rng(5).integers(0, 255, pair.moving.array.shape)
    noise = Image(values.astype(np.uint8), pair.moving.grid)
    try:
        verdict = register(model, pair.fixed, noise).quality.verdict
    except RegistrationError:
        verdict = "fail"
    assert verdict != "accept"


def test_a_wrong_kind_of_image_or_option_is_refused_in_a_sentence(model):
    pair = a_pair(model)
    other = a_pair("auto-brain" if pair.fixed.is_picture else "auto-fundus")
    with pytest.raises(InputError, match="registers"):
        register(model, pair.fixed, other.moving)
    with pytest.raises(OptionError, match="no option"):
        engine.register(RegistrationRequest(pair.fixed, pair.moving, model, {"speed": 3}))
    with pytest.raises(OptionError, match="use one of"):
        engine.register(
            RegistrationRequest(pair.fixed, pair.moving, model, {"transform": "projective"})
        )


def test_progress_rises_and_cancelling_stops_the_work(model):
    pair = a_pair(model)
    fractions: list[float] = []

    def report(_stage: str, fraction: float) -> None:
        fractions.append(fraction)
        if fraction > 0.3:
            raise Cancelled("Stopped by the test.")

    with pytest.raises(Cancelled):  # of a pair that no other test has aligned
        engine.register(RegistrationRequest(pair.moving, pair.fixed, model), report)
    assert fractions == sorted(fractions)
    assert len(fractions) >= 2
