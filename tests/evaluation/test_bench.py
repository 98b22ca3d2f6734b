"""The runner: what becomes of good, failing and missing pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retreg.errors import FileError, RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.evaluation.bench import run_cases
from retreg_server.evaluation.cases import Case, Pair, subset
from retreg_server.evaluation.peers import Answer

GRID = Grid.of_picture(16, 16)


def shifted_by(x: float) -> Affine:
    matrix = np.eye(4)
    matrix[0, 3] = x
    return Affine(matrix)


def a_pair() -> Pair:
    image = Image(np.ones((1, 1, 16, 16)), GRID)
    points = GRID.lattice(4)
    return Pair(image, image, points, points + (2, 0, 0), error_unit_mm=0.5)


def answering(x: float):
    return lambda _fixed, _moving: Answer(shifted_by(x), "accept", "It fits.", {"ratio": 0.5})


def refusing(_fixed, _moving):
    raise RegistrationError("Nothing matches.")


def breaking(_fixed, _moving):
    raise ZeroDivisionError("oops")


def rows_of(cases, **methods):
    return [finished.row for finished in run_cases(cases, methods)]


def test_the_error_is_counted_in_the_unit_of_the_pair():
    (row,) = rows_of([Case("set", "pair", a_pair)], exact=answering(5.0))
    assert row.error == pytest.approx(3 / 0.5)
    assert row.initial_error == pytest.approx(2 / 0.5)
    assert row.largest == pytest.approx(3)
    assert (row.verdict, row.numbers["ratio"]) == ("accept", 0.5)
    assert row.seconds >= 0


def test_the_median_ignores_an_outlying_landmark():
    pair = a_pair()
    pair.original_points[0] += 100
    rows = [
        rows_of([Case("set", "pair", lambda: pair, statistic=name)], exact=answering(2.0))[0]
        for name in ("median", "mean")
    ]
    assert rows[0].error == pytest.approx(0)
    assert rows[1].error == pytest.approx(100 * math.sqrt(3) / 16 / 0.5)


def test_errors_of_a_turned_copy_are_measured_in_the_original():
    halved = Affine(np.diag([0.5, 0.5, 1.0, 1.0]))
    pair = Pair(a_pair().fixed, a_pair().moving, GRID.lattice(4), GRID.lattice(4), halved)
    doubling = Affine(np.diag([2.0, 2.0, 1.0, 1.0]))
    (row,) = rows_of([Case("s", "p", lambda: pair)], m=lambda _f, _m: Answer(doubling))
    assert row.error == pytest.approx(0, abs=1e-12)


def test_one_failed_pair_is_a_row_and_the_others_go_on():
    def missing() -> Pair:
        raise FileError("a.png is missing.")

    loads = {"first": a_pair, "lost": missing, "last": a_pair}
    cases = [Case("set", name, load) for name, load in loads.items()]
    rows = rows_of(cases, good=answering(2.0), refusing=refusing, breaking=breaking)
    by_key = {(row.pair, row.model): row for row in rows}
    assert len(by_key) == 9
    assert by_key["first", "refusing"].message == "Nothing matches."
    assert by_key["first", "refusing"].verdict == "fail"
    assert by_key["first", "breaking"].message == "ZeroDivisionError: oops"
    assert "a.png is missing" in by_key["lost", "good"].message
    assert by_key["last", "good"].error == pytest.approx(0)
    assert by_key["last", "refusing"].initial_error == pytest.approx(4)


def test_methods_take_turns_in_going_first():
    cases = [Case("set", str(n), a_pair) for n in range(3)]
    rows = rows_of(cases, a=answering(0), b=answering(0))
    assert [row.model for row in rows] == ["a", "b", "b", "a", "a", "b"]


def test_labels_are_moved_once_and_compared_where_both_have_them():
    grid = Grid((8, 8, 8), np.eye(4))
    labels = np.zeros((1, 8, 8, 8), np.int16)
    labels[0, :, :, 2:4] = 1
    labels[0, 0, 0, 7] = 5  # only in the fixed map
    moved = np.zeros_like(labels)
    moved[0, :, :, 3:5] = 1
    image = Image(labels, grid)
    pair = Pair(image, image, fixed_labels=image, original_labels=Image(moved, grid))
    rows = rows_of([Case("set", "p", lambda: pair)], shift=answering(1.0), none=answering(0.0))
    assert rows[0].dice == pytest.approx(1.0)
    assert rows[1].dice == pytest.approx(0.5)
    assert rows[0].initial_dice == pytest.approx(0.5)


def test_a_subset_is_always_the_same_and_keeps_the_order():
    cases = [Case("set", str(n), a_pair) for n in range(50)]
    chosen = [int(case.name) for case in subset(cases, 7)]
    assert chosen == sorted(chosen)
    assert len(set(chosen)) == 7
    assert [case.name for case in subset(cases, 7)] == [str(n) for n in chosen]
    assert len(subset(cases, None)) == 50
