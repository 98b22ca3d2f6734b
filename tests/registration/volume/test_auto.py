"""The brain model on made-up heads: any rotation, contrasts, head against bare brain."""

from __future__ import annotations

from functools import cache
from typing import get_args

import numpy as np
import pytest

from retreg.errors import Cancelled, RegistrationError
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg_server.phantoms.head import make_head_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.numerics.robust_weights import Linear
from retreg_server.registration.volume.brain import AutoBrain


def estimate(
    fixed: Image, moving: Image, transform: str = "affine", stages: Stages | None = None
) -> Estimate:
    options = AutoBrain.info.complete({"transform": transform})
    return AutoBrain().estimate(fixed, moving, options, stages or Stages())


@cache
def a_turned_pair() -> PhantomPair:
    return make_head_pair(2, spacing_mm=4.0, rotation_deg=50, stretch=0.0)


@cache
def estimate_of_the_turned_pair(family: str) -> Estimate:
    return estimate(a_turned_pair().fixed, a_turned_pair().moving, family)


def error_mm(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth, axis=1).mean())


@pytest.mark.parametrize(
    ("rotation_deg", "fixed", "moving"), [(175.0, "t1", "flair"), (100.0, "pd", "t1")]
)
def test_another_contrast_is_found_at_any_rotation_in_both_directions(rotation_deg, fixed, moving):
    pair = make_head_pair(
        7, spacing_mm=3.0, rotation_deg=rotation_deg, fixed=fixed, moving=moving, stripped=True
    )
    found = estimate(pair.fixed, pair.moving)
    truth = pair.truth(pair.landmarks)
    assert error_mm(found.transform(pair.landmarks), truth) < 1.5
    assert error_mm(found.backward(truth), pair.landmarks) < 1.5


@pytest.mark.parametrize("head_is_fixed", [True, False])
def test_a_whole_head_and_a_bare_brain_keep_their_sizes(head_is_fixed):
    pair = make_head_pair(5, spacing_mm=3.0, rotation_deg=70)
    bare = make_head_pair(5, spacing_mm=3.0, rotation_deg=70, stripped=True)
    fixed = pair.fixed if head_is_fixed else bare.fixed
    moving = bare.moving if head_is_fixed else pair.moving
    found = estimate(fixed, moving)
    assert error_mm(found.transform(bare.landmarks), pair.truth(bare.landmarks)) < 2.0


@pytest.mark.parametrize("family", get_args(Linear))
def test_the_transform_stays_in_its_family_and_never_mirrors(family):
    linear = estimate_of_the_turned_pair(family).transform.moving_from_fixed[:3, :3]
    assert np.linalg.det(linear) > 0
    gram = linear.T @ linear
    scale = np.trace(gram) / 3
    if family != "affine":
        np.testing.assert_allclose(gram, scale * np.eye(3), atol=1e-6)
    if family == "rigid":
        assert scale == pytest.approx(1, abs=1e-6)


def test_keypoints_lie_in_both_objects_with_weights_from_0_to_1():
    pair, found = a_turned_pair(), estimate_of_the_turned_pair("affine")
    points = found.fixed_keypoints
    assert 20 <= len(points) <= 128
    assert ((points.weights >= 0) & (points.weights <= 1)).all()
    assert pair.fixed.grid.contains(points.points).all()
    assert pair.moving.grid.contains(found.moving_keypoints.points).all()
    assert points.inliers.mean() > 0.6


def test_wrong_numbers_in_the_voxels_are_tolerated():
    pair = make_head_pair(3, spacing_mm=4.0, rotation_deg=40)
    array = pair.fixed.array.copy()
    array[0, :3] = np.nan
    found = estimate(Image(array, pair.fixed.grid), pair.moving)
    assert error_mm(found.transform(pair.landmarks), pair.truth(pair.landmarks)) < 3.0


def test_an_empty_volume_is_refused_by_its_role():
    pair = make_head_pair(3, spacing_mm=6.0)
    black = Image(np.zeros_like(pair.fixed.array), pair.fixed.grid)
    with pytest.raises(RegistrationError, match="moving"):
        estimate(pair.fixed, black)


def test_the_same_call_gives_the_same_numbers():
    pair, first = a_turned_pair(), estimate_of_the_turned_pair("affine")
    again = estimate(pair.fixed, pair.moving)
    for one, other in ((first.transform, again.transform), (first.backward, again.backward)):
        np.testing.assert_array_equal(one.moving_from_fixed, other.moving_from_fixed)


def test_a_cancelled_job_stops():
    pair = make_head_pair(6, spacing_mm=6.0)

    def refuse(stage: str, _fraction: float) -> None:
        if "comparing" in stage:
            raise Cancelled("The work was stopped.")

    with pytest.raises(Cancelled):
        estimate(pair.fixed, pair.moving, "rigid", Stages(refuse))


def test_real_contrasts_of_one_brain_are_aligned_after_a_turn(retreg_data):
    from retreg.files import read_image

    fixed = read_image(retreg_data / "brain/openms_mni/patient07_T1.nii.gz")
    moving = read_image(retreg_data / "brain/openms_mni/patient07_T2.nii.gz")
    turn = np.eye(4)
    turn[:3, :3] = [[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]
    turn[:3, 3] = [120.0, -40.0, 60.0]
    turned = Image(moving.array, Grid(moving.grid.size, turn @ moving.grid.world_from_index))
    points = fixed.grid.world(np.argwhere(fixed.array[0] > 0)[::997, ::-1].astype(float))
    found = estimate(fixed, turned)
    assert error_mm(found.transform(points), apply_matrix(turn, points)) < 1.0
