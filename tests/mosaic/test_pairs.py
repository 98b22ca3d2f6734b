"""Which pairs of views are registered, and which of them count."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from retreg.errors import Cancelled, RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.mosaic import pairs as module
from retreg_server.mosaic.pairs import TRIES, PairFinder, groups
from retreg_server.registration.model import Stages

POINTS = Keypoints(np.zeros((1, 3)), np.ones(1), np.ones(1, bool))


def finder(monkeypatch, count, agreeing, verdict_of):
    """A finder over an engine that knows the verdicts, and the pairs that it was asked for."""
    grid = Grid.of_picture(2, 2)
    images = [Image(np.full((1, 1, 2, 2), n, np.uint8), grid) for n in range(count)]
    asked = []

    def register(request, progress):
        pair = tuple(int(each.array[0, 0, 0, 0]) for each in (request.fixed, request.moving))
        asked.append(pair)
        progress("", 1.0)
        verdict = verdict_of(pair)
        if verdict is None:
            raise RegistrationError("Nothing was found.")
        quality = Quality({"agreement": 0.8}, verdict, "As it is.")
        return RegistrationResult(Affine.identity(), POINTS, POINTS, quality, {})

    monkeypatch.setattr(module.engine, "register", register)
    return PairFinder(images, agreeing, Stages()), asked


def in_a_field(columns, rows):
    """Views in rows and columns, each beside its eight neighbours."""
    places = np.array([(n % columns, n // columns) for n in range(columns * rows)])
    return {
        (i, j): max(0, 60 - 25 * int(np.abs(places[i] - places[j]).sum()))
        for i, j in combinations(range(len(places)), 2)
    }


def test_thirty_views_cost_no_more_registrations_than_a_few_for_each(monkeypatch):
    agreeing = in_a_field(6, 5)
    found, asked = finder(monkeypatch, 30, agreeing, lambda _: "accept")
    pairs = found.find()
    assert set(groups(30, pairs)) == {0}
    assert len(asked) == len(set(asked)) <= 4 * 30 < len(agreeing) / 3


def test_a_stranger_is_tried_a_few_times_and_then_given_up(monkeypatch):
    agreeing = {pair: 0 if 9 in pair else 40 for pair in combinations(range(10), 2)}
    found, asked = finder(monkeypatch, 10, agreeing, lambda p: "fail" if 9 in p else "accept")
    assert set(groups(10, found.find())) == {0, 9}
    assert sum(9 in pair for pair in asked) == TRIES


def test_views_whose_features_do_not_agree_are_joined_by_the_search(monkeypatch):
    agreeing = {(0, 1): 30, (0, 2): 3, (1, 2): 5}
    found, asked = finder(monkeypatch, 3, agreeing, lambda _: "accept")
    assert set(groups(3, found.find())) == {0}
    assert asked == [(0, 1), (1, 2)]


@pytest.mark.parametrize("verdict", ["check", "fail", None])
def test_only_accepted_pairs_join_views(monkeypatch, verdict):
    found, _ = finder(monkeypatch, 2, {(0, 1): 50}, lambda _: verdict)
    pairs = found.find()
    assert len(pairs) == 1
    assert groups(2, pairs).tolist() == [0, 1]


def test_two_eyes_are_two_groups(monkeypatch):
    agreeing = {(i, j): 40 if i // 3 == j // 3 else 6 for i, j in combinations(range(6), 2)}
    found, _ = finder(
        monkeypatch, 6, agreeing, lambda p: "accept" if p[0] // 3 == p[1] // 3 else "fail"
    )
    assert groups(6, found.find()).tolist() == [0, 0, 0, 3, 3, 3]


def test_it_can_be_cancelled_between_and_in_registrations(monkeypatch):
    heard = []

    def progress(_stage, fraction):
        heard.append(fraction)
        if fraction > 0.3:
            raise Cancelled("Enough.")

    found, asked = finder(monkeypatch, 10, dict.fromkeys(combinations(range(10), 2), 40),
                          lambda _: "accept")  # fmt: skip
    found.stages = Stages(progress)
    with pytest.raises(Cancelled):
        found.find()
    assert heard == sorted(heard)
    assert 2 < len(asked) < 20
