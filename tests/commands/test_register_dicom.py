"""`retreg register` with DICOM files: frames, notes, and what is no photograph."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retreg.cli import main
from retreg.messages import Keypoints
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.registration import engine

PHOTOGRAPH = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.5.1", "Modality": "OP"}
SIZE = (3, 24, 32)


@pytest.fixture
def requests(monkeypatch):
    """What reaches the engine; instead of registering, it answers the identity."""
    reached = []

    def judged(info, request, options, estimate, watch):
        reached.append(request)
        return original(info, request, options, estimate, watch)

    original = engine.judged
    points = Keypoints(np.zeros((1, 3)), np.ones(1), np.ones(1, bool))
    estimate = engine.Estimate(Affine.identity(), points, points, Affine.identity())
    monkeypatch.setattr(engine, "judged", judged)
    monkeypatch.setattr(engine, "assess", lambda *_: Quality({}, "accept", "It is a stand-in."))
    monkeypatch.setattr(engine, "_both_ways", lambda *_: estimate)
    return reached


@pytest.fixture
def visits(tmp_path, write_dicom):
    """Two DICOM files of three photographs each, and their pixels."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, SIZE, dtype=np.uint8) for _ in range(2)]
    sides = ({"ImageLaterality": "R"}, {"ImageLaterality": "L"})
    paths = [
        str(write_dicom(tmp_path / f"{n}.dcm", each, **PHOTOGRAPH, **side))
        for n, (each, side) in enumerate(zip(pixels, sides, strict=True))
    ]
    return paths, pixels, str(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "fixed", "moving"),
    [
        (["--frame", "2"], 2, 2),
        (["--fixed-frame", "3", "--moving-frame", "1"], 3, 1),
        (["--frame", "2", "--moving-frame", "3"], 2, 3),
    ],
)
def test_a_frame_of_each_file_is_chosen(visits, requests, arguments, fixed, moving):
    paths, pixels, out = visits
    assert main(["register", *paths, "-o", out, *arguments]) == 0
    np.testing.assert_array_equal(requests[0].fixed.array[0, 0], pixels[0][fixed - 1])
    np.testing.assert_array_equal(requests[0].moving.array[0, 0], pixels[1][moving - 1])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [([], "holds 3 pictures"), (["--frame", "4"], "4 is none"), (["--frame", "0"], "0 is none")],
)
def test_several_pictures_are_not_a_head(visits, requests, capsys, arguments, told):
    paths, _, out = visits
    assert main(["register", *paths, "-o", out, *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not requests


@pytest.mark.usefixtures("requests")
def test_the_notes_stand_below_the_verdict_and_in_the_result(visits, capsys, tmp_path):
    paths, _, out = visits
    assert main(["register", *paths, "-o", out, "--frame", "1"]) == 0
    said = capsys.readouterr().out
    note = "The fixed image says that it is of the right side, the moving one of the left."
    assert f"Note: {note}\n" in said
    assert "Secret" not in said
    result = (tmp_path / "out" / "result.json").read_text("utf-8")
    assert json.loads(result)["notes"] == [note]
    assert "Secret" not in result


@pytest.mark.parametrize("says", [{"Modality": "MR"}, {"Modality": "DX"}, {"Modality": "CT"}])
def test_a_slice_goes_to_a_model_for_the_retina_only_when_that_is_named(
    tmp_path, write_dicom, requests, capsys, says
):
    pixels = np.random.default_rng(0).integers(0, 256, SIZE[1:], dtype=np.uint8)
    uid = "1.2.840.10008.5.1.4.1.1.7"
    path = str(write_dicom(tmp_path / "a.dcm", pixels, SOPClassUID=uid, **says))
    command = ["register", path, path, "-o", str(tmp_path / "out")]
    assert main(command) == 2
    assert "name a model (as with --model)" in capsys.readouterr().err
    assert not requests
    assert main([*command, "--model", "auto-fundus"]) == 0
    said = capsys.readouterr().out
    assert said.count("and was registered as a picture") == 2


def test_a_group_of_slices_gets_no_model_for_the_retina_unasked(tmp_path, write_dicom, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, SIZE[1:], dtype=np.uint8)
    path = str(write_dicom(tmp_path / "a.dcm", pixels, Modality="MR"))
    assert main(["groupwise", path, path, "-o", str(tmp_path / "out")]) == 2
    assert "a single slice of a scan" in capsys.readouterr().err
