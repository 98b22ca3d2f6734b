"""From overlaps to places: who is in, who is out, and what is said of either."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.mosaic import pairs, placement
from retreg_server.mosaic.placement import make_mosaic
from retreg_server.registration.model import Stages

PLACES = np.array([[0, 0], [40, 0], [0, 40], [40, 40], [700, 0], [740, 0], [2000, 0]])
NAMES = [f"view {n}" for n in range(len(PLACES))]


@pytest.fixture
def views(monkeypatch):
    """Seven views of 100 pixels: four of one eye, two of another, and a stranger; wrong: pairs
    whose result is off although it is accepted; verdicts: of seams in the mosaic."""
    wrong, verdicts = {}, {}
    grid = Grid.of_picture(100, 100)
    images = [Image(np.full((1, 1, 100, 100), n, np.uint8), grid) for n in range(len(PLACES))]

    def number(image):
        return int(image.array[0, 0, 0, 0])

    def register(request, progress):
        progress("", 1.0)
        i, j = number(request.fixed), number(request.moving)
        shift = np.append(PLACES[i] - PLACES[j] + wrong.get((i, j), 0), 0.0)
        points = np.array([[x, y, 0] for x in (10, 50, 90) for y in (10, 50, 90)], float)
        matrix = np.eye(4)
        matrix[:3, 3] = shift
        near = np.abs(PLACES[i] - PLACES[j]).max() < 60
        verdict = "accept" if near else "fail"
        quality = Quality({"agreement": 0.5 if (i, j) in wrong else 0.9}, verdict, "So it is.")
        every = np.ones(9)
        found = [Keypoints(each, every, every > 0) for each in (points, points + shift)]
        return RegistrationResult(Affine(matrix), *found, quality, {}, Affine(matrix).inverse)

    def assessed(measure, *_):
        verdict = verdicts.get(measure, "accept")
        return Quality({}, verdict, f"It is {verdict}.")

    class Subject:
        @staticmethod
        def measured(fixed, moving):
            return number(fixed), number(moving)

    monkeypatch.setattr(pairs.engine, "register", register)
    monkeypatch.setattr(placement, "assess", assessed)
    monkeypatch.setitem(placement.SUBJECTS, "retina", Subject())
    every = dict.fromkeys(combinations(range(len(PLACES)), 2), 40)
    monkeypatch.setattr(placement, "agreeing_matches", lambda *_: (every, {}))
    monkeypatch.setattr(pairs, "PARTNERS", 9)
    return images, wrong, verdicts


def test_the_largest_eye_becomes_the_mosaic_and_others_are_named(views):
    mosaic = make_mosaic(views[0], NAMES, Stages())
    assert sorted(mosaic.placed) == [0, 1, 2, 3]
    assert set(mosaic.left_out) == {4, 5, 6}
    assert "It overlaps view 5, but none of them" in mosaic.left_out[4]
    assert "overlaps no other view for sure" in mosaic.left_out[6]
    for n in (0, 1, 2, 3):
        there = mosaic.placed[n](np.array([[50.0, 50, 0]]))[0, :2]
        expected = PLACES[n] - PLACES[mosaic.reference] + 50
        np.testing.assert_allclose(there, expected, atol=1e-6)
    assert mosaic.judged(0, NAMES)[0] == "accept"
    assert mosaic.judged(6, NAMES) == ("fail", mosaic.left_out[6])


def test_an_accepted_pair_that_contradicts_the_others_moves_nothing_and_is_told(views):
    images, wrong, _ = views
    wrong[0, 1] = np.array([30, -25])
    mosaic = make_mosaic(images, NAMES, Stages())
    assert [pair.views for pair in mosaic.dropped] == [(0, 1)]
    shift = [mosaic.placed[n](np.zeros((1, 3)))[0, :2] for n in (0, 1)]
    np.testing.assert_allclose(shift[1] - shift[0], PLACES[1] - PLACES[0], atol=1e-6)
    verdict, reason = mosaic.judged(0, NAMES)
    assert verdict == "check"
    assert "where it meets view 1 contradicts" in reason
    assert mosaic.judged(3, NAMES)[0] == "accept"


def test_a_view_has_the_verdict_of_its_worst_seam(views):
    images, _, verdicts = views
    verdicts[1, 3] = "fail"
    verdicts[2, 3] = "check"
    mosaic = make_mosaic(images, NAMES, Stages())
    assert mosaic.judged(3, NAMES) == ("fail", "Beside view 1: It is fail.")
    assert mosaic.judged(2, NAMES) == ("check", "Beside view 3: It is check.")
    assert mosaic.judged(0, NAMES)[0] == "accept"
