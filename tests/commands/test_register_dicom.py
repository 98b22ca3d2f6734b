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
SIZE = (3, 64, 80)


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


SCAN = {
    "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.3.4", "PatientID": "P-1",
    "PixelSpacing": [1, 1], "SliceThickness": 2, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}  # fmt: skip


@pytest.fixture
def scans(tmp_path, write_dicom):
    """A function that writes a series of slices with other attributes."""
    rng = np.random.default_rng(0)

    def write(name, **attributes):
        folder = tmp_path / name
        folder.mkdir()
        uid = f"1.2.3.{len(name)}"
        for n in range(5):
            pixels = rng.integers(0, 1000, SIZE[1:], dtype=np.int16)
            place = {"ImagePositionPatient": [0, 0, 2 * n], "SeriesInstanceUID": uid}
            says = {"Modality": "MR", **SCAN, **place, **attributes}
            write_dicom(folder / f"{n}.dcm", pixels, **says)
        return str(folder)

    return write


def written(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.dcm"))


@pytest.mark.usefixtures("requests")
def test_objects_of_scans_are_written_beside_the_other_files(scans, tmp_path):
    out = tmp_path / "out"
    command = ["register", scans("fixed"), scans("moving"), "-o", str(out), "--dicom"]
    assert main(command) == 0
    assert main(command) == 0  # what is there is replaced
    series = [f"dicom/series/{n:04d}.dcm" for n in range(1, 6)]
    others = [f"dicom/{name}.dcm" for name in ("fiducials", "registration", "report")]
    assert written(out) == [*others, *series]
    assert (out / "transform.h5").is_file()
    assert not list(out.glob(".retreg-*"))
    from retreg.files import read_image

    np.testing.assert_array_equal(
        read_image(out / "dicom/series").array, read_image(out / "warped.nrrd").array
    )


@pytest.mark.usefixtures("requests")
def test_objects_of_photographs_are_written_for_the_frames_that_were_taken(visits, tmp_path):
    import pydicom

    paths, _, out = visits
    for path in paths:
        data = pydicom.dcmread(path)
        data.StudyInstanceUID = "1.2.3"
        data.save_as(path)
    assert main(["register", *paths, "-o", out, "--frame", "2", "--dicom"]) == 0
    names = ["blink", "checkerboard", "fiducials", "registered", "registration", "report"]
    assert written(tmp_path / "out") == [f"dicom/{name}.dcm" for name in names]
    data = pydicom.dcmread(tmp_path / "out/dicom/registration.dcm")
    for item in data.RegistrationSequence:
        assert item.ReferencedImageSequence[0].ReferencedFrameNumber == 2


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"PatientID": "P-2"}, "of different patients"),
        ({"Modality": "NM"}, "MR and CT, not of NM"),
        ({"StudyInstanceUID": ""}, "has no StudyInstanceUID"),
    ],
)
def test_why_there_can_be_no_objects_is_told_before_the_work(
    scans, requests, tmp_path, capsys, attributes, told
):
    command = ["register", scans("fixed"), scans("moving", **attributes), "--dicom"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "P-1" not in said
    assert not requests


def test_images_that_are_no_dicom_have_no_objects(tmp_path, requests, capsys):
    from PIL import Image

    path = str(tmp_path / "a.png")
    Image.fromarray(np.zeros(SIZE[1:], np.uint8)).save(path)
    assert main(["register", path, path, "-o", str(tmp_path / "out"), "--dicom"]) == 2
    assert "a.png is no DICOM image" in capsys.readouterr().err
    assert not requests


@pytest.mark.usefixtures("requests")
def test_a_registration_that_failed_leaves_no_objects(scans, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "assess", lambda *_: Quality({}, "fail", "It is wrong."))
    out = tmp_path / "out"
    assert main(["register", scans("fixed"), scans("moving"), "-o", str(out), "--dicom"]) == 3
    assert written(out) == []
    assert "There are no DICOM objects" in capsys.readouterr().out
