"""Learned features: any rotation, both modalities, either polarity, and what happens without."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from retreg.errors import FileError, RegistrationError
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.fundus import global_alignment as module
from retreg_server.registration.fundus import learned_features, prepared_picture
from retreg_server.registration.fundus.features import SIFT_ON_VESSELS, Features, Matches, Method
from retreg_server.registration.fundus.global_alignment import global_alignment
from retreg_server.registration.fundus.learned_features import (
    POINTS,
    best_methods,
    learned_method,
)
from retreg_server.registration.fundus.point_matching import usable_matchers
from retreg_server.registration.fundus.superpoint import SuperPointFundus
from retreg_server.registration.model import Stages
from retreg_server.registration.preprocessing.retina_picture import retina_picture
from retreg_server.registration.preprocessing.vesselness import vessel_maps

SIZE = 512


def unasked(_doubt: bool) -> tuple[list, list]:
    return [], []


@cache
def a_pair(angle: float, seed: int = 3):
    return make_fundus_pair(
        seed, size=SIZE, rotation_deg=angle, elastic_px=0, moving="angiography"
    )


def error_of(transform, pair) -> float:
    missed = transform(pair.landmarks) - pair.truth(pair.landmarks)
    return float(np.median(np.linalg.norm(missed, axis=1)))


def estimated(pair, **options: str):
    model = SuperPointFundus()
    return model.estimate(pair.fixed, pair.moving, model.info.complete(options), Stages())


@pytest.mark.parametrize("angle", [0, 40, 100, 185, 290])
def test_a_colour_picture_and_an_angiogram_of_any_rotation_meet(angle):
    pair = a_pair(angle)
    found = estimated(pair)
    assert error_of(found.transform, pair) < 4
    assert found.evidence["inliers"] > 30
    back = found.backward(found.transform(pair.landmarks))
    assert np.median(np.linalg.norm(back - pair.landmarks, axis=1)) < 4


@pytest.mark.parametrize("matcher", usable_matchers())
@pytest.mark.parametrize("points", list(POINTS))
def test_each_way_of_finding_and_matching_points_solves_an_easy_pair(points, matcher):
    pair = a_pair(0)
    assert error_of(estimated(pair, points=points, matcher=matcher).transform, pair) < 8


def test_one_look_does_not_see_a_picture_upside_down():
    with pytest.raises(RegistrationError, match="try auto-fundus"):
        estimated(a_pair(185), looks="1")


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_descriptors_after_a_turn_are_those_of_the_turned_picture(turns):
    picture = retina_picture(a_pair(0).fixed, "fixed", 768)
    maps = vessel_maps(picture.grey, picture.inside)
    side = min(maps.best.shape)
    vessels, valid = maps.best[:side, :side], maps.valid[:side, :side]
    upright = learned_features.described_corners(vessels, valid)
    turned = learned_features.described_corners(
        np.ascontiguousarray(np.rot90(vessels, turns)), np.ascontiguousarray(np.rot90(valid, turns))
    )
    places = learned_features._turned(upright.points, turns, side)
    apart = np.linalg.norm(places[:, None] - turned.points[None], axis=2)
    same = apart.min(axis=1) < 0.5
    assert same.sum() > 100
    partner = apart.argmin(axis=1)
    cosines = (upright.turned(turns).descriptors * turned.descriptors[partner]).sum(1)
    assert np.median(cosines[same]) > 0.99
    told = upright.turned(turns).told[same, :2]
    assert told == pytest.approx(turned.told[partner[same], :2], abs=0.002)


def test_ridges_of_the_wrong_polarity_are_no_reason_to_search(monkeypatch):
    """The map that stands out more is not the one of the vessels, as in some angiograms."""
    pair = a_pair(40)
    pictures = [retina_picture(each, "a", 768) for each in (pair.fixed, pair.moving)]

    def misjudged(grey, inside, field):
        maps = vessel_maps(grey, inside, field)
        return maps if grey is pictures[0].grey else replace(
            maps, strongest_first=maps.strongest_first[::-1]
        )

    monkeypatch.setattr(prepared_picture, "vessel_maps", misjudged)
    monkeypatch.setattr(module, "searched", lambda *_: pytest.fail("The search was needed."))
    found = global_alignment(*pictures, Stages(), unasked, (learned_method(),))
    assert found.moving.polarity == 1
    assert found.forward.inliers.sum() > 20


def stub(count: int, asked: list[str], name: str) -> Method:
    """A method that finds count matches which agree on the identity."""
    points = np.random.default_rng(1).uniform(100, 600, (max(count, 1), 2))[:count]

    def match(_fixed, _moving):
        asked.append(name)
        matches = Matches(points, points, np.ones(len(points)))
        return matches, matches

    return Method(lambda *_: Features(points, points), match)


@pytest.mark.parametrize(("count", "expected"), [(60, ["first"]), (0, ["first", "second"])])
def test_the_next_method_is_asked_only_when_the_first_does_not_settle_it(
    count, expected, monkeypatch
):
    picture = retina_picture(a_pair(0).fixed, "fixed", 768)
    monkeypatch.setattr(module, "searched", lambda *_: pytest.fail("The search was needed."))
    asked: list[str] = []
    methods = stub(count, asked, "first"), stub(50, asked, "second")
    found = global_alignment(picture, picture, Stages(), unasked, methods)
    assert asked == expected
    assert found.forward.moving_from_fixed == pytest.approx(np.eye(3), abs=0.05)


@pytest.mark.parametrize(("score", "is_searched"), [(12.0, False), (4.0, True)])
def test_inliers_are_believed_where_vessels_meet_however_faint(score, is_searched, monkeypatch):
    picture = retina_picture(a_pair(0).fixed, "fixed", 768)
    monkeypatch.setattr(module, "chance_score", lambda *_: score)
    methods = (stub(30, [], "only"),)
    found = global_alignment(picture, picture, Stages(), unasked, methods)
    assert found.searched == is_searched


def test_without_weights_sift_is_first_and_the_log_says_why(monkeypatch, caplog):
    def broken():
        raise FileError("The weights of superpoint-fundus are not used: they are damaged.")

    assert len(best_methods()) == 2
    best_methods.cache_clear()
    monkeypatch.setattr(learned_features, "network", broken)
    try:
        assert best_methods() == (SIFT_ON_VESSELS,)
        assert "they are damaged" in caplog.text
    finally:
        best_methods.cache_clear()
