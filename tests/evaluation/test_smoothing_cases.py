"""The aperture problem and long displacements: solved with the layer, and not without it."""

from __future__ import annotations

import argparse
import math
from functools import cache

import cv2
import numpy as np
import pytest

from retreg.errors import OptionError
from retreg_server.commands import evaluate
from retreg_server.evaluation import smoothing_cases
from retreg_server.evaluation.smoothing_cases import PATCH, shape_cases

CASES = shape_cases()
solved = cache(smoothing_cases.solve_shape)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_moved_shape_is_followed_with_the_layer_and_not_without_it(case):
    moved = math.hypot(*case.displacement)
    assert moved > PATCH / 2  # farther than a pixel sees
    result = solved(case)
    assert result.error_with < 0.25
    assert result.error_without > 1.0


def command(*words):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return evaluate.run(parser.parse_args(words))


def test_the_command_writes_a_picture_and_the_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(smoothing_cases, "shape_cases", lambda: CASES)
    monkeypatch.setattr(smoothing_cases, "solve_shape", solved)
    assert command("smoothing", "--out", str(tmp_path)) == 0
    picture = cv2.imread(str(tmp_path / "smoothing.png"))
    assert picture.shape[0] > 1000
    assert np.ptp(picture) > 100
    rows = (tmp_path / "smoothing.csv").read_text().splitlines()
    assert len(rows) == len(CASES) + 1 == 5
    assert capsys.readouterr().out.count("without the layer") == 4


def test_other_benchmarks_ask_for_images():
    with pytest.raises(OptionError, match="--data"):
        command("retina")
