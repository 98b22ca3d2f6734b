"""The two fundus models on made-up eyes with known truth, and on real pairs where there are any."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.pair import PhantomPair
from retreg_server.registration.fundus.auto import FAMILIES, AutoFundus
from retreg_server.registration.fundus.sift import FundusSift
from retreg_server.registration.model import Estimate, Stages


@cache
def a_bent_pair() -> PhantomPair:
    return make_fundus_pair(2, size=640, rotation_deg=160, scale=0.9, elastic_px=3)


def estimated(fixed: Image, moving: Image, family: str = "quadratic") -> Estimate:
    options = AutoFundus.info.complete({"transform": family})
    return AutoFundus().estimate(fixed, moving, options, Stages())


def error(estimate: Estimate, pair: PhantomPair) -> float:
    missed = estimate.transform(pair.landmarks) - pair.truth(pair.landmarks)
    return float(np.linalg.norm(missed, axis=1).mean())


@pytest.mark.parametrize(
    ("family", "limit"),
    [("similarity", 2.5), ("affine", 2.5), ("quadratic", 1.6), ("tps", 1.0), ("deformable", 1.0)],
)
def test_colour_and_angiography_are_aligned_as_well_as_the_family_allows(family, limit):
    pair = a_bent_pair()
    found = estimated(pair.fixed, pair.moving, family)
    assert error(found, pair) < limit
    returned = found.backward(pair.truth(pair.landmarks))
    assert np.linalg.norm(returned - pair.landmarks, axis=1).mean() < 1.5 * limit


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_with_itself_gives_the_identity(family):
    fixed = a_bent_pair().fixed
    points = fixed.grid.lattice(40)
    found = estimated(fixed, fixed, family)
    assert np.abs(found.transform(points) - points).max() < 0.05
    assert np.abs(found.backward(points) - points).max() < 0.05


def test_far_outside_the_picture_the_bend_does_not_explode():
    pair = a_bent_pair()
    found = estimated(pair.fixed, pair.moving)
    centre, far = pair.fixed.grid.centre, np.array([[6000.0, -5000.0, 0]])
    moved = np.linalg.norm(found.transform(far) - found.transform(centre[None]))
    assert moved / np.linalg.norm(far - centre) == pytest.approx(0.9, abs=0.05)


def test_the_plane_is_mapped_to_the_plane_and_its_normal_to_the_normal():
    pair = a_bent_pair()
    matrix = np.array([[0, 0, 2.0, 5], [1, 0, 0, -3], [0, 1, 0, 8], [0, 0, 0, 1]])
    upright = Image(pair.moving.array, Grid(pair.moving.grid.size, matrix))
    found = estimated(pair.fixed, upright, "affine")
    points = pair.landmarks[:4]
    above = found.transform(points + [0, 0, 1.5]) - found.transform(points)
    np.testing.assert_allclose(above, np.tile([1.5, 0, 0], (4, 1)), atol=1e-6)
    np.testing.assert_allclose(found.transform(points)[:, 0], 5, atol=1e-6)


def test_two_different_eyes_leave_weak_evidence():
    pair, other = a_bent_pair(), make_fundus_pair(8, size=640, rotation_deg=20)
    right, wrong = estimated(pair.fixed, pair.moving), estimated(pair.fixed, other.moving)
    for name in ("inlier_ratio", "vessel_correlation", "vessel_deviations", "vessel_score"):
        assert wrong.evidence[name] < 0.7 * right.evidence[name]
    assert wrong.evidence["search_lead"] < 1.4


def test_keypoints_are_spread_and_lie_on_the_transform():
    pair = a_bent_pair()
    found = estimated(pair.fixed, pair.moving)
    fixed, moving = found.fixed_keypoints, found.moving_keypoints
    inliers = fixed.inliers
    assert 20 <= inliers.sum() <= 256
    assert np.ptp(fixed.points[inliers], axis=0)[:2].min() > 0.5 * 640
    distance = np.linalg.norm(found.transform(fixed.points) - moving.points, axis=1)
    assert distance[inliers].max() < 8
    assert (fixed.weights[~inliers] == 0).all()


def test_a_picture_without_vessels_is_refused():
    fixed = a_bent_pair().fixed
    y, x = np.mgrid[:300, :300]
    disc = np.where(np.hypot(x - 150, y - 150) < 130, 170, 0).astype(np.uint8)[None, None]
    disc = Image(disc, Grid.of_picture(300, 300))
    with pytest.raises(RegistrationError, match=r"moving picture shows no blood vessels.*\.$"):
        estimated(fixed, disc)


def test_the_baseline_aligns_one_modality_and_refuses_two_in_a_sentence():
    same = make_fundus_pair(4, size=512, rotation_deg=40, elastic_px=0, moving="colour")
    options = {"transform": "affine", "smoothing": 0.1}
    assert error(FundusSift().estimate(same.fixed, same.moving, options, Stages()), same) < 1
    noise = np.random.default_rng(1).integers(0, 255, (1, 1, 300, 300)).astype(np.uint8)
    with pytest.raises(RegistrationError, match=r"agree on one transform.*try auto-fundus\.$"):
        FundusSift().estimate(
            same.fixed, Image(noise, Grid.of_picture(300, 300)), options, Stages()
        )


def read(path: Path) -> Image:
    array = cv2.imread(str(path))[..., ::-1].transpose(2, 0, 1)[:, None]
    return Image(array, Grid.of_picture(array.shape[3], array.shape[2]))


@pytest.mark.parametrize("name", ["024", "038", "055"])
def test_hard_real_pairs_are_within_the_noise_of_their_landmarks(retreg_data, name):
    folder = retreg_data / "retina" / "multimodal_landmark_pairs"
    fixed, moving = (read(folder / f"{name}_{role}.png") for role in ("fixed", "moving"))
    rows = np.genfromtxt(folder / f"{name}_landmarks.csv", delimiter=",", skip_header=2)
    found = estimated(fixed, moving).transform(np.pad(rows[:, :2], ((0, 0), (0, 1))))
    error = np.median(np.linalg.norm(found[:, :2] - rows[:, 2:4], axis=1))
    assert error * 1000 / max(fixed.grid.size) < 10
