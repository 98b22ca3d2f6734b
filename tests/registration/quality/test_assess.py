"""The images themselves tell right transforms from wrong ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints
from retreg.quality import Quality
from retreg.transforms import Affine, Chain
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.model import Estimate
from retreg_server.registration.quality.assess import assess
from retreg_server.registration.quality.retina import PictureQuality
from retreg_server.registration.quality.volume import SHIFTS, VolumeQuality, _shifted_costs
from retreg_server.registration.subject import subject_of
from retreg_server.registration.volume.deformation import deform
from retreg_server.registration.volume.volume_pair import PreparedVolume


@pytest.fixture(scope="module", params=["picture", "volume"])
def pair(request):
    if request.param == "picture":
        return make_fundus_pair(7, size=512, rotation_deg=70, elastic_px=0)
    return make_head_pair(7, spacing_mm=3.0, rotation_deg=70)


def prepared(pair):
    return subject_of(pair.fixed).measured(pair.fixed, pair.moving)


def assessed(pair, estimate: Estimate) -> Quality:
    return assess(prepared(pair), pair.fixed.grid, pair.moving.grid, estimate)


def off_by(pair, share: float) -> Chain:
    """The truth, then a shift of a share of the image size along x and y."""
    shift = np.eye(4)
    shift[:2, 3] = share * max(pair.fixed.grid.size) * pair.fixed.grid.spacing[0]
    return Chain((pair.truth, Affine(shift)))


def an_estimate(pair, transform, backward) -> Estimate:
    points = pair.landmarks[:20]
    keypoints = Keypoints(points, np.ones(len(points)), np.ones(len(points), bool))
    return Estimate(transform, keypoints, replace(keypoints, points=transform(points)), backward)


def test_the_truth_agrees_and_a_wrong_transform_does_not(pair):
    measure = prepared(pair)
    right = measure.measure(pair.truth)
    wrong = measure.measure(off_by(pair, 0.15))
    assert right["agreement"] > 0.6
    assert right["overlap"] > 0.6
    assert wrong["agreement"] < 0.2
    assert right["nmi"] > wrong["nmi"]


def test_a_transform_that_looks_elsewhere_shares_nothing(pair):
    numbers = prepared(pair).measure(off_by(pair, 3))
    assert numbers["overlap"] == 0
    assert numbers["agreement"] == 0
    assert numbers["blocks"] == 0


def test_the_points_lie_inside_the_object(pair):
    measure = prepared(pair)
    assert len(measure.points) > 200
    assert pair.fixed.grid.contains(measure.points).mean() > 0.99
    values = pair.fixed.grey()
    index = np.rint(pair.fixed.grid.index(measure.points)).astype(int).T
    index = np.clip(index, 0, np.array(pair.fixed.grid.size)[:, None] - 1)
    inside = values[index[2], index[1], index[0]]
    assert np.median(inside) > np.percentile(values, 30)


def test_the_truth_is_accepted_and_both_directions_must_agree(pair):
    inverse = _inverse_on(pair)
    good = assessed(pair, an_estimate(pair, pair.truth, inverse))
    assert good.verdict == "accept"
    assert good.numbers["folding"] == 0
    assert good.numbers["inconsistency"] < 0.002
    assert good.numbers["inlier_ratio"] == 1
    other = Chain((inverse, off_by(replace(pair, truth=Affine.identity()), 0.2)))
    bad = assessed(pair, an_estimate(pair, pair.truth, other))
    assert bad.verdict == "fail"
    assert "other way" in bad.reason


def test_without_a_second_direction_nothing_is_accepted(pair):
    assert assessed(pair, an_estimate(pair, pair.truth, None)).verdict == "fail"


def test_the_wrong_transform_fails(pair):
    wrong = off_by(pair, 0.15)
    back = np.eye(4)
    back[:3, 3] = -(wrong.transforms[1].moving_from_fixed[:3, 3])
    backward = Chain((Affine(back), _inverse_on(pair)))
    quality = assessed(pair, an_estimate(pair, wrong, backward))
    assert quality.numbers["inconsistency"] < 0.01
    assert quality.verdict == "fail"


def _inverse_on(pair):
    """The affine inverse of a truth that is affine up to a residual far below a voxel."""
    from retreg.fitting import fit_affine

    points = pair.landmarks
    return fit_affine(pair.truth(points), points)


def test_a_picture_of_the_other_polarity_agrees_as_well():
    pair = make_fundus_pair(8, size=512, rotation_deg=0, elastic_px=0, moving="redfree")
    inverted = Image(255 - pair.moving.array, pair.moving.grid)
    numbers = PictureQuality(pair.fixed, inverted).measure(pair.truth)
    assert numbers["agreement"] > 0.7


@pytest.mark.parametrize("zoom", [0.45, 2.2])
def test_the_overlap_is_that_of_the_picture_that_shows_less(zoom):
    pair = make_fundus_pair(8, size=400, scale=zoom, shift=(0.0, 0.0), elastic_px=0)
    numbers = PictureQuality(pair.fixed, pair.moving).measure(pair.truth)
    assert numbers["overlap"] > 0.9
    away = np.eye(4)
    away[0, 3] = 200 * max(zoom, 1)  # half of the field of the moving picture
    away = Affine(away @ pair.truth.moving_from_fixed)
    assert 0.2 < PictureQuality(pair.fixed, pair.moving).measure(away)["overlap"] < 0.8


def test_the_world_of_a_volume_may_be_anywhere():
    pair = make_head_pair(7, spacing_mm=3.0, rotation_deg=20)
    world = np.eye(4)
    world[:3, :3] = [[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]
    world[:3, 3] = [500, -200, 90]
    grid = Grid(pair.fixed.grid.size, world @ pair.fixed.grid.world_from_index)
    placed = Image(pair.fixed.array, grid)
    transform = Chain((Affine(np.linalg.inv(world)), pair.truth))
    there = VolumeQuality(placed, pair.moving).measure(transform)["agreement"]
    here = VolumeQuality(pair.fixed, pair.moving).measure(pair.truth)["agreement"]
    assert there > 0.7
    assert abs(there - here) < 0.15


def test_a_common_outline_alone_is_no_agreement():
    pair = make_head_pair(9, spacing_mm=3.0, rotation_deg=0, stripped=True)
    brain = pair.fixed.array[0] > 0
    noise = gaussian_filter(np.random.default_rng(1).normal(size=brain.shape), 1.5)
    stuffed = Image(np.where(brain, 500 + 2000 * noise, 0)[None].astype("f4"), pair.fixed.grid)
    assert VolumeQuality(pair.fixed, pair.fixed).measure(Affine.identity())["agreement"] > 0.95
    assert VolumeQuality(pair.fixed, stuffed).measure(Affine.identity())["agreement"] < 0.2


def test_a_deformation_does_not_hide_a_wrong_global_map():
    pair = make_head_pair(7, spacing_mm=4.0, rotation_deg=0, shift_mm=(0, 0, 0), stripped=True)
    upside_down = np.diag([1.0, -1, -1, 1])
    centre = pair.landmarks.mean(axis=0)
    upside_down[:3, 3] = centre - upside_down[:3, :3] @ centre
    views = PreparedVolume.of(pair.fixed, "fixed"), PreparedVolume.of(pair.moving, "moving")
    bent = deform(*views, upside_down, upside_down)
    estimate = an_estimate(pair, bent.forward, bent.backward)
    found = assessed(pair, replace(estimate, undeformed=Affine(upside_down)))
    stiff = assessed(pair, an_estimate(pair, *[Affine(upside_down)] * 2))
    assert found.numbers["agreement"] > stiff.numbers["agreement"] + 0.05
    assert found.numbers["agreement_undeformed"] == pytest.approx(stiff.numbers["agreement"])
    assert found.verdict == "fail"


@pytest.mark.parametrize("shape", [(9, 11, 13), (8, 8, 1), (2, 7, 30)])
def test_a_shift_goes_around_the_volume_even_a_thin_one(shape):
    fixed, warped = torch.rand(2, 1, 12, *shape, generator=torch.Generator().manual_seed(2))
    for shift, cost in zip(
        product(SHIFTS, repeat=3), _shifted_costs(fixed, warped), strict=True
    ):
        rolled = torch.roll(warped, shift, (2, 3, 4))
        torch.testing.assert_close(cost, (fixed - rolled).square().mean(dim=(0, 1)))
