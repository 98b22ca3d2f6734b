"""Summaries and the report's files."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.evaluation.bench import Finished, Row
from retreg_server.evaluation.cases import Pair
from retreg_server.evaluation.report import Report, severity
from retreg_server.evaluation.summaries import (
    brain_errors,
    costs,
    fire_errors,
    retina_errors,
    verdicts_on_right_pairs,
    verdicts_on_wrong_pairs,
)


def a_row(name: str = "a", error: float = 1.0, **values: object) -> Row:
    row = Row("set", name, "model", True, "", float("nan"), error, 40.0, error, error, error)
    return replace(row, **values)


def test_retina_summary_counts_failures_and_missing_transforms():
    rows = [a_row(error=e) for e in (2.0, 4.0, 30.0)] + [a_row(error=float("nan"), message="no")]
    summary = retina_errors(rows)
    assert summary["median error, px of 1000"] == "17.00"
    assert summary["failures (> 25)"] == "2"
    assert summary["within 10 px of 1000"] == "50.0 %"
    assert summary["worst, px of 1000"] == "no transform"
    # 2 px passes 3 ... 15 (13), 4 px 5 ... 15 (11), of 4 pairs times 15
    assert float(summary["AUC@15"]) == pytest.approx((13 + 11) / 60, abs=5e-4)


def test_fire_summary_averages_the_categories_not_the_pairs():
    rows = [a_row(error=0.5, category="S")] * 3 + [a_row(error=100.0, category="P")]
    summary = fire_errors(rows)
    assert summary["FIRE S AUC@25"] == "1.000"
    assert summary["FIRE P AUC@25"] == "0.000"
    assert summary["FIRE mAUC@25"] == "0.500"
    assert summary["FIRE success at 25 px"] == "75 %"
    assert summary["FIRE inaccurate"] == "25.0 %"


def test_brain_summary_is_binned_by_the_known_angle():
    rows = [a_row(error=e, angle_deg=a) for e, a in ((0.5, 10), (3.0, 44), (0.7, 179))]
    summary = brain_errors(rows)
    assert summary["0 to 45°: within 2 mm, median"] == "50.0 %, 1.75"
    assert summary["135 to 180°: within 2 mm, median"] == "100.0 %, 0.70"
    assert "45 to 90°: within 2 mm, median" not in summary


def test_verdicts_are_counted_on_wrong_and_on_right_pairs():
    wrong = [a_row(right=False, verdict=v) for v in ("accept", "check", "fail", "fail")]
    right = [
        a_row(verdict="accept", error=40.0),
        a_row(verdict="check"),
        a_row(verdict="fail", error=2.0),
        a_row(verdict="fail", error=float("nan"), message="no features"),
    ]
    on_wrong = verdicts_on_wrong_pairs(wrong + right)
    assert on_wrong["set: accept / check / fail"] == "1 / 1 / 2"
    assert on_wrong["false-accept rate"] == "25.0 %"
    on_right = verdicts_on_right_pairs(wrong + right, 25)
    assert on_right["all: accept / check / fail"] == "1 / 1 / 2"
    assert on_right["false-reject rate (fail)"] == "50.0 %"
    assert on_right["accepted although the error is > 25"] == "1"
    assert on_right["rejected although the error is ≤ 25"] == "1"


def test_methods_without_verdicts_are_not_judged_by_them():
    assert verdicts_on_wrong_pairs([a_row(right=False)]) == {}


def test_time_ratios_are_formed_pair_by_pair():
    base = [a_row(n, seconds=s, cpu_seconds=1.0, peak_mb=1) for n, s in (("a", 1.0), ("b", 10.0))]
    rows = [
        a_row(n, model="x", seconds=s, cpu_seconds=2.0, peak_mb=3)
        for n, s in (("a", 3.0), ("b", 20.0))
    ]
    summary = costs(rows, base)
    assert summary["seconds relative to model"] == "2.50"
    assert summary["processor seconds relative to model"] == "2.00"
    assert summary["highest memory, MB"] == "3"


def test_wrong_pairs_that_were_accepted_come_first():
    rows = [
        a_row("good", 1.0),
        a_row("bad", 50.0),
        a_row("none", float("nan"), message="no features"),
        a_row("accepted", float("nan"), right=False, verdict="accept"),
        a_row("rejected", float("nan"), right=False, verdict="fail"),
    ]
    rows.sort(key=lambda row: severity(row, "retina"), reverse=True)
    assert [row.pair for row in rows] == ["accepted", "none", "bad", "good", "rejected"]


def a_finished(name: str, error: float) -> Finished:
    image = Image(np.arange(3 * 64.0).reshape(3, 1, 8, 8), Grid.of_picture(8, 8))
    return Finished(a_row(name, error), Pair(image, image), Affine.identity())


def test_the_report_is_complete_and_points_only_into_its_folder(tmp_path):
    report = Report(tmp_path, "retina", ["A note."])
    report.add(a_finished("near", 1.0))
    report.add(a_finished("far", 99.0))
    report.close()
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [line["pair"] for line in lines] == ["near", "far"]
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["rows"][1]["error"] == 99.0
    assert document["rows"][1]["dice"] is None
    assert "| far | 99.00 |" in (tmp_path / "results.md").read_text()
    page = (tmp_path / "index.html").read_text()
    assert page.index("<h3>far") < page.index("<h3>near")
    sources = re.findall(r'src="([^"]+)"', page)
    assert len(sources) == 4
    assert all((tmp_path / source).stat().st_size > 100 for source in sources)


def test_rows_are_on_disk_before_the_report_is_closed(tmp_path):
    report = Report(tmp_path, "retina")
    report.add(a_finished("first", 1.0))
    assert "first" in (tmp_path / "results.csv").read_text()
    report.close()


def test_names_from_files_cannot_break_the_page(tmp_path):
    report = Report(tmp_path, "retina")
    report.add(a_finished("<script>/../x", 1.0))
    report.close()
    assert "<script>" not in (tmp_path / "index.html").read_text()
