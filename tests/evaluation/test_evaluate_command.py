"""`retreg evaluate` from end to end, with a method that takes no time."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import pytest

from retreg.errors import InputError, OptionError
from retreg_server.commands import evaluate
from retreg_server.evaluation import bench


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return parser.parse_args(words)


def run(data: Path, out: Path, *words: str) -> int:
    return evaluate.run(
        arguments(*words, "--data", str(data), "--out", str(out), "--model", "identity")
    )


@pytest.mark.parametrize(("benchmark", "sets"), [("retina", 7), ("brain", 6)])
def test_one_pair_of_each_set_gives_a_complete_report(benchmark, sets, retreg_data, tmp_path):
    assert run(retreg_data, tmp_path, benchmark, "--pairs", "1") == 0
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["benchmark_set"] for row in rows}) == len(rows) == sets
    assert not any(row["message"] for row in rows)
    for row in rows:
        assert row["error"] == row["initial_error"]
    names = {"results.csv", "results.json", "results.md", "index.html", "pictures"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_interrupting_keeps_the_finished_pairs(retreg_data, tmp_path, monkeypatch, capsys):
    original = bench._finished

    def interrupted(case, *rest):
        if case.benchmark_set != "multimodal":
            raise KeyboardInterrupt
        return original(case, *rest)

    monkeypatch.setattr(bench, "_finished", interrupted)
    assert run(retreg_data, tmp_path, "retina", "--pairs", "2") == 130
    assert "finished pairs are reported" in capsys.readouterr().err
    assert (tmp_path / "results.csv").read_text().count("multimodal,") == 2
    assert "Set multimodal" in (tmp_path / "results.md").read_text()


def test_a_wrong_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="holds no data"):
        run(tmp_path, tmp_path / "out", "retina")
    assert not (tmp_path / "out").exists()


def test_an_unknown_set_is_refused(retreg_data, tmp_path):
    with pytest.raises(OptionError, match="'moon' is not known"):
        run(retreg_data, tmp_path / "out", "retina", "--set", "moon")


def test_zero_pairs_are_refused(capsys):
    with pytest.raises(SystemExit):
        arguments("retina", "--data", "x", "--pairs", "0")
    assert "from 1 upwards" in capsys.readouterr().err
