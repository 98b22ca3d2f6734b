"""Features and their matches are handed to the global alignment: a learned one is another one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.fundus import global_alignment as module
from retreg_server.registration.fundus.features import Features, Matches, Method
from retreg_server.registration.fundus.global_alignment import global_alignment
from retreg_server.registration.keymorph.initial_maps import no_suggestions
from retreg_server.registration.model import Stages
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture


@pytest.fixture(scope="module")
def pictures() -> tuple[Picture, Picture, object]:
    """Two pictures of one eye, and the truth."""
    pair = make_fundus_pair(3, size=400, rotation_deg=40)
    fixed, moving = retina_picture(pair.fixed, "fixed", 400), retina_picture(pair.moving, "m", 400)
    return fixed, moving, pair


def told(points: np.ndarray) -> Features:
    """Features that know nothing but their place."""
    return Features(points, np.zeros((len(points), 1), np.float32))


NOTHING = Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
BLIND = Method(lambda *_: told(np.zeros((0, 2))), lambda *_: (NOTHING, NOTHING))


def test_another_method_is_asked_for_features_and_matches(pictures, monkeypatch):
    fixed, moving, pair = pictures
    asked = []

    def detect(vessels: np.ndarray, valid: np.ndarray) -> Features:
        asked.append(vessels.shape)
        corners = cv2.goodFeaturesToTrack(vessels, 200, 0.01, 8, mask=valid.astype(np.uint8))
        return told(corners[:, 0].astype(float))

    def match(first: Features, _second: Features) -> tuple[Matches, Matches]:
        there = moving.pixels(pair.truth(fixed.world(first.points)))
        matches = Matches(first.points, there, np.ones(len(there)))
        return matches, matches.swapped

    monkeypatch.setattr(module, "searched", lambda *_: pytest.fail("The search was needed."))
    found = global_alignment(
        fixed, moving, Stages(), no_suggestions, (Method(detect, match),)
    )
    assert len(asked) == 2
    assert found.forward.inliers.sum() > 60
    points = fixed.pixels(pair.landmarks)
    mapped = points @ found.forward.moving_from_fixed[:2, :2].T
    mapped += found.forward.moving_from_fixed[:2, 2]
    missed = np.linalg.norm(mapped - moving.pixels(pair.truth(pair.landmarks)), axis=1)
    assert np.median(missed) < 2


def test_a_method_that_finds_nothing_leaves_it_to_the_search(pictures):
    fixed, moving, _ = pictures
    found = global_alignment(fixed, moving, Stages(), no_suggestions, (BLIND,))
    assert found.searched
    assert found.forward.agreement.correlation > 0.3


def test_a_search_that_ends_beyond_any_camera_is_no_error(pictures, monkeypatch):
    fixed, moving, _ = pictures
    far = module.Hypothesis(np.diag([9.0, 9.0, 1.0]), 1.0)
    monkeypatch.setattr(module, "searched", lambda *_: [far, far])
    found = global_alignment(fixed, moving, Stages(), no_suggestions, (BLIND,))
    np.testing.assert_array_equal(found.forward.moving_from_fixed, far.moving_from_fixed)


@pytest.mark.parametrize(("are_marked", "searches"), [(False, 4), (True, 2)])
def test_what_is_left_of_annotations_is_not_searched_for(
    are_marked, searches, pictures, monkeypatch
):
    fixed, moving, _ = pictures
    asked = []

    def unclear(*maps):
        asked.append(maps)
        return [module.Hypothesis(np.eye(3), 1.0)] * 2

    monkeypatch.setattr(module, "searched", unclear)
    global_alignment(fixed, moving, Stages(), no_suggestions, (BLIND,), are_marked)
    assert len(asked) == searches
