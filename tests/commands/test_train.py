"""`retreg train` as a user types it: a few steps, on with it, export, and what goes wrong."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from retreg_server.cli import main
from retreg_server.registration.networks.keypoint_net import net_from_dict
from retreg_server.registration.networks.weights import load_network
from retreg_server.training import keymorph_brain, keymorph_fundus
from retreg_server.training.correspondence import (
    Anatomy,
    load_anatomies,
    save_anatomies,
    spread_points,
)
from retreg_server.training.label_maps import HALF_SIDE_MM, VOXELS, LabelMap


@pytest.fixture(scope="module")
def vessels(tmp_path_factory):
    """A folder with the mask of one vessel."""
    folder = tmp_path_factory.mktemp("vessels")
    mask = np.zeros((200, 300), np.uint8)
    cv2.line(mask, (20, 100), (280, 100), 255, 4)
    cv2.imwrite(str(folder / "HRF_01_dr_vessels.png"), mask)
    return folder


@pytest.fixture
def few_eyes(monkeypatch):
    monkeypatch.setattr(keymorph_fundus, "PHANTOMS", 2)
    monkeypatch.setattr(keymorph_fundus, "UNSEEN_PHANTOMS", 1)


@pytest.fixture
def matched_heads(tmp_path, monkeypatch):
    """A folder of a run whose heads, four balls of brain, have been matched already."""
    monkeypatch.setattr(keymorph_brain, "VALIDATION_PAIRS", 1)
    axis = ((np.arange(VOXELS) + 0.5) / VOXELS * 2 - 1) * HALF_SIDE_MM
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    labels = torch.from_numpy(np.where(x**2 + y**2 + z**2 < 70**2, 2, 0).astype(np.int16))
    heads = [LabelMap(name, labels) for name in "abcd"]
    run = tmp_path / "run"
    run.mkdir()
    points = spread_points(heads[0], 16)
    save_anatomies(run / "anatomies.npz", [Anatomy(head, points) for head in heads])
    return run


def fundus(folder, out, *more):
    return ["train", "keymorph-fundus", "--data", str(folder), "-o", str(out),
            "--keypoints", "16", "--batch", "1", *more]


def brain(out, *more):
    return ["train", "keymorph-brain", "--data", str(out), "-o", str(out), "--keypoints", "16",
            "--batch", "1", *more]


def checked_export(run, folder, name, steps):
    """Export, which knows the options of the run, and load what was written."""
    assert main(["train", name, "-o", str(run), "--export", str(folder)]) == 0
    _, metadata = load_network(name, net_from_dict, folder)
    assert metadata.template.shape[0] == 16
    own = metadata.card["retreg"]
    assert own["measured"]["step"] == steps
    expected = {"recipe": name, "steps": steps, "batch": 1, "keypoints": 16, "seed": 0}
    assert own["recipe"].items() >= expected.items()
    rows = (run / "training.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, steps]


@pytest.mark.usefixtures("few_eyes")
def test_a_fundus_network_is_trained_continued_and_exported(vessels, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(fundus(vessels, run, "--steps", "1")) == 0
    assert "1 steps; best validation error" in capsys.readouterr().out
    assert main(fundus(vessels, run, "--steps", "2", "--mixed-precision")) == 0
    (run / "best.json").write_text(json.dumps({"step": 2, "seconds": 1.0, "error": 1.0}))
    checked_export(run, tmp_path / "w", "keymorph-fundus", 2)


def test_a_brain_network_is_trained_continued_and_exported(matched_heads, tmp_path):
    assert main(brain(matched_heads, "--steps", "1")) == 0
    assert main(brain(matched_heads, "--steps", "2", "--objective", "supervised")) == 0
    (matched_heads / "best.json").write_text(json.dumps({"step": 2, "seconds": 1.0, "error": 1.0}))
    checked_export(matched_heads, tmp_path / "w", "keymorph-brain", 2)


def refused(capsys, arguments, complaint):
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint in said
    assert said.endswith(".")


def test_folders_without_what_is_needed_are_refused_before_anything_takes_time(tmp_path, capsys):
    nothing, out = tmp_path / "nothing", tmp_path / "out"
    refused(capsys, fundus(nothing, out), "nothing holds no vessel masks")
    refused(capsys, brain(nothing), "nothing holds no label maps")
    refused(capsys, ["train", "keymorph-brain", "-o", str(out)], "Training needs --data DIR")
    refused(capsys, brain(out, "--export", str(tmp_path)), "out holds no run of keymorph-brain")
    refused(capsys, fundus(nothing, out, "--export", str(tmp_path)), "no validated weights yet")
    assert not out.exists()


def test_too_few_heads_are_refused(matched_heads, tmp_path, capsys, monkeypatch):
    two = [each.head for each in load_anatomies(matched_heads / "anatomies.npz")[:2]]
    monkeypatch.setattr(keymorph_brain, "read_label_maps", lambda _: two)
    refused(capsys, brain(tmp_path / "few"), "too few label maps (2); at least 3 are needed")


def test_impossible_numbers_of_keypoints_are_refused(vessels, tmp_path, capsys):
    for arguments in (fundus(vessels, tmp_path / "a"), brain(tmp_path / "b")):
        refused(capsys, [*arguments, "--keypoints", "9"], "9 keypoints were asked for; 16 to 512")


@pytest.mark.usefixtures("few_eyes")
def test_a_run_of_another_network_is_refused(matched_heads, tmp_path, capsys, vessels):
    refused(capsys, [*brain(matched_heads), "--keypoints", "32"], "has 16 keypoints and 32 were")
    run = tmp_path / "eyes"
    assert main(fundus(vessels, run, "--steps", "1")) == 0
    capsys.readouterr()
    refused(capsys, fundus(vessels, run, "--keypoints", "32"), "belongs to another network")
    assert json.loads((run / "recipe.json").read_text())["keypoints"] == 16
    export = ["-o", str(run), "--export", str(tmp_path)]
    refused(capsys, ["train", "keymorph-brain", *export], "is of keymorph-fundus, not of keymorph-")
    (run / "recipe.json").unlink()  # as runs of before
    export += ["--keypoints", "32"]
    refused(capsys, ["train", "keymorph-fundus", *export], "damaged or of another network")
    (run / "checkpoint.safetensors").write_bytes(b"cut")
    refused(capsys, fundus(vessels, run), "The checkpoint in eyes is damaged")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("--steps", "0", "from 1 upwards"),
        ("--rate", "-1", "above 0"),
        ("--rate", "nan", "above 0"),
        ("--check-minutes", "0", "above 0"),
        ("--seed", "-3", "from 0 upwards"),
        ("--batch", "two", "invalid"),
        ("--device", "tpu", "invalid choice"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, capsys, name, value, complaint):
    with pytest.raises(SystemExit) as ended:
        main(brain(tmp_path, name, value))
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_missing_is_refused(tmp_path, capsys):
    refused(capsys, brain(tmp_path, "--device", "cuda"), "No CUDA device")
