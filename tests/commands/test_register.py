"""`retreg register` as a user types it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from retreg.files import read_image, read_markups, write_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.cli import main
from retreg_server.demo.server import own_server
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.reporting import result_folder
from retreg_server.reporting.overlays import overlay
from retreg_server.reporting.views import views

FILES = {
    "transform.h5",
    "transform_backward.h5",
    "keypoints.csv",
    "fixed_keypoints.mrk.json",
    "moving_keypoints.mrk.json",
    "fixed.nrrd",
    "warped.nrrd",
    "overlay.png",
    "result.json",
}


@pytest.fixture(scope="module")
def a_fundus_pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fundus")
    pair = make_fundus_pair(11, size=512, rotation_deg=50, elastic_px=0)
    write_image(folder / "colour.png", pair.fixed)
    write_image(folder / "angiogram.png", pair.moving)
    return folder, pair


@pytest.fixture(scope="module")
def registered(a_fundus_pair):
    folder, pair = a_fundus_pair
    status = main(
        ["register", str(folder / "colour.png"), str(folder / "angiogram.png"),
         "-o", str(folder / "out"), "--transform", "affine"]
    )
    return status, folder / "out", pair


def test_two_pictures_in_a_right_transform_out(registered):
    status, out, pair = registered
    assert status == 0
    assert {path.name for path in out.iterdir()} == FILES | {"warped.png"}
    transform = sitk.ReadTransform(str(out / "transform.h5"))
    found = np.array([transform.TransformPoint(point) for point in pair.landmarks])
    assert np.linalg.norm(found - pair.truth(pair.landmarks), axis=1).mean() < 1.5


def test_resampling_with_simpleitk_gives_the_warped_picture(registered):
    _, out, pair = registered
    warped = read_image(out / "warped.nrrd")
    assert warped.array.shape == (pair.moving.array.shape[0], 1, 512, 512)
    np.testing.assert_array_equal(read_image(out / "warped.png").array, warped.array)
    moving = sitk.GetImageFromArray(pair.moving.array[0])
    expected = sitk.Resample(
        moving, moving, sitk.ReadTransform(str(out / "transform.h5")), sitk.sitkLinear, 0.0
    )
    difference = np.abs(sitk.GetArrayFromImage(expected).astype(float) - warped.array[0])
    assert (difference > 1).mean() < 0.001


def test_the_result_says_what_was_done_and_how_good_it_is(registered):
    _, out, _ = registered
    result = json.loads((out / "result.json").read_text())
    assert result["model"] == "auto-fundus"
    assert result["transform"] == "affine"
    assert result["verdict"] == "accept"
    assert result["reason"].endswith(".")
    assert result["quality"]["agreement"] > 0.5
    assert all(seconds >= 0 for seconds in result["seconds"].values())
    fixed, moving = (read_markups(out / f"{r}_keypoints.mrk.json") for r in ("fixed", "moving"))
    assert len(fixed) == len(moving) == result["keypoints"]


def test_the_overlay_shows_before_and_after(registered):
    _, out, _ = registered
    pixels = np.asarray(Picture.open(out / "overlay.png"))
    assert pixels.shape[1] > 2 * 500
    left, right = np.array_split(pixels[24:500], 2, axis=1)
    assert np.abs(left[:, : right.shape[1]].astype(int) - right).mean() > 5


def test_a_server_gives_the_same_result_as_this_process(registered, a_fundus_pair, tmp_path):
    folder, _ = a_fundus_pair
    files = [str(folder / "colour.png"), str(folder / "angiogram.png")]
    with own_server() as url:
        status = main(
            ["register", *files, "-o", str(tmp_path), "--transform", "affine", "--server", url]
        )
    assert status == 0
    here, there = (
        sitk.ReadTransform(str(out / "transform.h5")) for out in (registered[1], tmp_path)
    )
    np.testing.assert_allclose(there.GetParameters(), here.GetParameters(), atol=1e-4)


def a_result(verdict: str = "check") -> RegistrationResult:
    points = np.array([[4.0, 5, 6], [10, 12, 3], [20, 20, 20]])
    keypoints = Keypoints(points, np.ones(3), np.array([True, True, False]))
    return RegistrationResult(
        Affine.identity(), keypoints, keypoints, Quality({"overlap": 1.0}, verdict, "A reason."),
        {"model": "none", "options": {"transform": "rigid"}},
    )


def a_volume() -> Image:
    values = np.random.default_rng(0).integers(0, 1000, (1, 20, 30, 25), np.int16)
    return Image(values, Grid((25, 30, 20), np.diag([2.0, -1.5, 3, 1])))


def test_a_volume_is_shown_upright_from_three_sides():
    image = a_volume()
    planes = views(image.grid)
    extents = [np.array(view.size[:2]) * view.spacing[:2] for view in planes]
    np.testing.assert_allclose(extents, [[50, 45], [50, 60], [45, 60]], atol=1)
    for view in planes:
        np.testing.assert_allclose(view.centre, image.grid.centre, atol=0.5)
    np.testing.assert_allclose(planes[1].direction[:, 1], [0, 0, -1])
    assert overlay(image, image, a_result()).shape[2] == 3


def test_files_appear_together_or_not_at_all(tmp_path, monkeypatch):
    result_folder.check_writable(tmp_path / "new")
    monkeypatch.setattr(result_folder, "overlay", _full_disk)
    with pytest.raises(result_folder.FileError, match="No space left"):
        result_folder.write_outputs(tmp_path / "new", a_volume(), a_volume(), a_result())
    monkeypatch.setattr(result_folder, "overlay", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        result_folder.write_outputs(tmp_path / "new", a_volume(), a_volume(), a_result())
    assert list((tmp_path / "new").iterdir()) == []


def _full_disk(*_arguments):
    raise OSError(28, "No space left on device")


def _interrupt(*_arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.png", "colour.png"], "missing.png"),
        (["colour.png", "broken.png"], "broken.png"),
        (["colour.png", "head.nrrd"], "moving image is a volume"),
        (["colour.png", "angiogram.png", "--model", "magic"], "magic"),
        (["colour.png", "angiogram.png", "--model", "auto-brain"], "picture"),
        (["colour.png", "angiogram.png", "--smoothing", "-3"], "smoothing"),
        (["colour.png", "angiogram.png", "--device", "cuda"], "CPU"),
        (["colour.png", "angiogram.png", "--server", "http://localhost:1", "--device", "cpu"],
         "device"),
        (["colour.png", "angiogram.png", "--server", "http://localhost:1",
          "--token-file", "none"], "token"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    a_fundus_pair, tmp_path, capsys, monkeypatch, arguments, words
):
    folder, _ = a_fundus_pair
    (folder / "broken.png").write_bytes((folder / "colour.png").read_bytes()[:3000])
    write_image(folder / "head.nrrd", a_volume())
    monkeypatch.chdir(folder)
    assert main(["register", *arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("retreg: ")
    assert "Traceback" not in error
    assert error.strip().count("\n") == 0
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_folder_that_cannot_be_made_is_refused(a_fundus_pair, capsys):
    folder, _ = a_fundus_pair
    files = [str(folder / "colour.png"), str(folder / "angiogram.png")]
    assert main(["register", *files, "-o", str(folder / "colour.png" / "out")]) == 2
    assert "output folder" in capsys.readouterr().err


def test_a_black_picture_cannot_be_used_which_is_status_2(a_fundus_pair, tmp_path, capsys):
    folder, pair = a_fundus_pair
    write_image(tmp_path / "black.png", replace(pair.moving, array=0 * pair.moving.array))
    arguments = [str(folder / "colour.png"), str(tmp_path / "black.png"), "-o", str(tmp_path / "o")]
    assert main(["register", *arguments]) == 2
    assert "blank" in capsys.readouterr().err


def test_a_failed_verdict_is_status_3_with_files(a_fundus_pair, tmp_path, capsys):
    folder, _ = a_fundus_pair
    other = make_fundus_pair(12, size=512, rotation_deg=0, elastic_px=0)
    write_image(tmp_path / "other.png", other.fixed)
    arguments = [str(folder / "colour.png"), str(tmp_path / "other.png"), "-o", str(tmp_path / "o")]
    assert main(["register", *arguments]) == 3
    assert capsys.readouterr().out.startswith("fail: ")
    assert (tmp_path / "o" / "result.json").exists()


def test_without_a_verb_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "register" in capsys.readouterr().out


def test_a_mistake_of_the_program_is_no_traceback(a_fundus_pair, tmp_path, capsys, monkeypatch):
    folder, _ = a_fundus_pair
    monkeypatch.setattr("retreg.files.read_pair", _bug)
    files = [str(folder / "colour.png"), str(folder / "angiogram.png")]
    assert main(["register", *files, "-o", str(tmp_path / "o")]) == 70
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert "Traceback" not in error


def _bug(*_arguments):
    raise ZeroDivisionError


def test_two_volumes_in_a_right_transform_out(tmp_path):
    pair = make_head_pair(5, spacing_mm=3.0, rotation_deg=100)
    write_image(tmp_path / "t1.nii.gz", pair.fixed)
    write_image(tmp_path / "t2.mha", pair.moving)
    status = main(
        ["register", str(tmp_path / "t1.nii.gz"), str(tmp_path / "t2.mha"),
         "-o", str(tmp_path / "o"), "--transform", "affine"]
    )
    assert status == 0
    assert {path.name for path in (tmp_path / "o").iterdir()} == FILES
    transform = sitk.ReadTransform(str(tmp_path / "o" / "transform.h5"))
    found = np.array([transform.TransformPoint(point) for point in pair.landmarks])
    assert np.linalg.norm(found - pair.truth(pair.landmarks), axis=1).mean() < 1.5
