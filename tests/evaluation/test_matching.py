"""The benchmark of matching: its truth is true, and its measures tell right matches from wrong."""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import pytest

from retreg.errors import FileError
from retreg.files import write_image
from retreg_server.commands import evaluate
from retreg_server.evaluation import matching_pairs
from retreg_server.evaluation.keypoints import Measured
from retreg_server.evaluation.matching import (
    matching_methods,
    matching_numbers,
    measured_match,
    write_matching_report,
)
from retreg_server.evaluation.matching_pairs import DEGRADATIONS, difficulties
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.registration.fundus.feature_estimate import PictureMethod
from retreg_server.registration.fundus.features import Features, Matches
from retreg_server.registration.fundus.point_matching import MATCHERS
from retreg_server.registration.preprocessing.retina_picture import retina_picture


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with one photograph."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "retina" / "vessels").mkdir(parents=True)
    pair = make_fundus_pair(3, size=400)
    write_image(folder / "retina" / "vessels" / "MADE_01.png", pair.fixed)
    write_image(folder / "retina" / "vessels" / "MADE_01_vessels.png", pair.fixed)
    return folder


@pytest.fixture(scope="module")
def pairs(data):
    return difficulties(data, 3)


def knowing(pair, offset):
    """A method that finds a lattice and matches every point with an error of offset pixels."""
    pictures = [retina_picture(pair.fixed, "f", 768), retina_picture(pair.moving, "m", 768)]
    axis = np.arange(100, 700, 40.0)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    there = pictures[1].pixels(pair.moving_from_fixed(pictures[0].world(points))) + offset
    found = iter((Features(points, points), Features(there, there)))
    matches = Matches(points, there, np.ones(len(points)))
    method = PictureMethod(lambda _: next(found), lambda *_: (matches, matches.swapped), 6.0)
    return measured_match(pair, *pictures, method)[0]


def test_every_kind_of_difficulty_is_there(pairs):
    kinds = {each.kind for each in pairs}
    assert kinds == {"rotation", "scale", "overlap", "degradation", "made-up"}
    assert {each.x for each in pairs if each.kind == "degradation"} == set(DEGRADATIONS)


@pytest.mark.parametrize("kind", ["rotation", "scale", "overlap", "degradation", "made-up"])
def test_under_the_truth_the_pictures_show_the_same(pairs, kind):
    """Vessels of both, blurred a little, correlate where the truth says."""
    each = [one for one in pairs if one.kind == kind][1]
    pair = each.load()
    moving_look = cv2.MORPH_TOPHAT if kind == "made-up" else cv2.MORPH_BLACKHAT  # an angiogram
    pictures = [retina_picture(pair.fixed, "f", 400), retina_picture(pair.moving, "m", 400)]
    ridges = [
        cv2.morphologyEx(cv2.GaussianBlur(p.grey, (0, 0), 2), look, np.ones((15, 15)))
        for p, look in zip(pictures, (cv2.MORPH_BLACKHAT, moving_look), strict=True)
    ]

    def values(shift):
        places = [
            pictures[0].pixels(pair.points), pictures[1].pixels(pair.moving_from_fixed(pair.points))
        ]
        places[1] = places[1] + shift
        return np.stack([
            cv2.remap(ridge, place[None].astype(np.float32), None, cv2.INTER_LINEAR)[0]
            for ridge, place in zip(ridges, places, strict=True)
        ])  # fmt: skip

    here = np.corrcoef(values(0))[0, 1]
    assert here > 0.6
    assert here > np.corrcoef(values(12))[0, 1] + 0.3


@pytest.mark.parametrize("index", [0, 4, 8, 14, 18])
def test_right_matches_count_and_wrong_ones_do_not(pairs, index):
    pair = pairs[index].load()
    right, wrong = knowing(pair, 0.0), knowing(pair, np.array([40.0, 0.0]))
    assert right["success"] == 1
    assert right["matching-score"] == pytest.approx(1)
    assert right["repeatability"] == pytest.approx(1)
    assert wrong["matching-score"] == 0
    assert wrong["success"] == 0


def test_the_report_says_shares_of_success_and_medians(tmp_path):
    numbers = [
        Measured(figure, "ours", "30", value, f"{number}")
        for figure, values in (("success-by-rotation", (1, 1, 0, 1)), ("milliseconds", (4, 5, 9)))
        for number, value in enumerate(values)
    ]
    write_matching_report(tmp_path, numbers)
    table = (tmp_path / "keypoints.md").read_text()
    assert "| ours | 0.75 |" in table
    assert "| ours | 5 |" in table
    assert (tmp_path / "success-by-rotation.png").stat().st_size > 1000


def test_all_methods_are_measured_on_a_pair(pairs):
    blind = PictureMethod(
        lambda _: Features(np.zeros((0, 2)), np.zeros((0, 4))),
        lambda *_: (Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)),) * 2,
        6.0,
    )
    ticks = []
    found = list(matching_numbers(pairs[:1], {"blind": blind}, lambda: ticks.append(1)))
    assert ticks == [1]
    assert {each.figure: each.value for each in found}["success-by-rotation"] == 0
    assert len(found) == 5


def test_the_command_compares_learned_points_with_sift(pairs, data, tmp_path, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    words = ["matching", "--data", str(data), "--out", str(tmp_path / "out")]
    words += ["--matcher", "sinkhorn"]
    monkeypatch.setattr(matching_pairs, "difficulties", lambda *_: [pairs[1]])
    assert evaluate.run(parser.parse_args(words)) == 0
    assert "20 numbers are in" in capsys.readouterr().out
    table = (tmp_path / "out" / "keypoints.md").read_text()
    assert "| superpoint-fundus, sinkhorn | 1 |" in table  # the share of success
    assert "nearest" not in table
    assert "| SIFT on vessels |" in table


def test_every_matcher_that_there_is_can_be_named():
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    named = parser.parse_args(["matching", "--matcher", *MATCHERS]).matcher
    assert list(matching_methods(named))[::2][:-1] == [f"superpoint-fundus, {m}" for m in MATCHERS]
    with pytest.raises(SystemExit):
        parser.parse_args(["matching", "--matcher", "guessing"])


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(FileError, match="no photographs"):
        difficulties(tmp_path, 3)
