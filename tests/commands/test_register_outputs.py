"""What `retreg register` says of its input, what it leaves, and what it refuses before it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import SimpleITK

import retreg
from retreg.about import notes_on
from retreg.cli import main
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine, DisplacementField

PAGE = Path(__file__).parents[2] / "docs" / "quick-start.md"
POINTS = Keypoints(np.array([[4.0, 5, 6], [10, 12, 3]]), np.ones(2), np.ones(2, bool))


def shift(*mm: float) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return Affine(matrix)


def a_volume(spacing=(2.0, 1.5, 3.0), air: int = -1000) -> Image:
    values = np.full((1, 12, 30, 25), air, np.int16)
    values[:, 3:9, 8:22, 7:18] = np.random.default_rng(0).integers(0, 900, (1, 6, 14, 11))
    return Image(values, Grid((25, 30, 12), np.diag([*spacing, 1])))


def save_picture(path: Path, dpi: int | None = None) -> None:
    y, x = np.mgrid[:48, :64]
    smooth = np.stack([x * 3, y * 4, x + y], -1).astype(np.uint8)
    PIL.Image.fromarray(smooth).save(path, quality=100, **({"dpi": (dpi, dpi)} if dpi else {}))


@pytest.fixture
def registering(monkeypatch):
    """Make `retreg register` find the given transform at once; what it was given is returned."""
    requests = []

    def found(transform):
        def register(request, _report):
            requests.append(request)
            return RegistrationResult(
                transform, POINTS, POINTS, Quality({"overlap": 1.0}, "check", "A reason."),
                {"model": "none", "options": {}},
            )

        monkeypatch.setattr("retreg_server.registration.engine.register", register)
        return requests

    return found


def register(folder: Path, fixed: str, moving: str, *options: str) -> int:
    return main(["register", str(folder / fixed), str(folder / moving), "-o", str(folder / "out"),
                 *options])  # fmt: skip


def lines_of_the_page() -> list[str]:
    lines = PAGE.read_text("utf-8").splitlines()
    return [line for line in lines if "SimpleITK.Resample(" in line]


@pytest.mark.parametrize("dpi", [None, 72, 300])
@pytest.mark.parametrize("transform", ["affine", "field"])
def test_the_line_for_pictures_works_as_written(tmp_path, monkeypatch, registering, dpi, transform):
    save_picture(tmp_path / "fixed.jpg", dpi)
    save_picture(tmp_path / "moving.jpg", dpi)
    field = DisplacementField(np.full((3, 1, 48, 64), [[[[5.0]]], [[[-3.0]]], [[[0.0]]]]),
                              Grid.of_picture(64, 48))  # fmt: skip
    registering(shift(5, -3, 0) if transform == "affine" else field)
    assert register(tmp_path, "fixed.jpg", "moving.jpg") == 0
    monkeypatch.chdir(tmp_path)
    by_itk = warped_by(lines_of_the_page()[1])
    ours = retreg.read_image("out/warped.nrrd").array[:, 0]
    np.testing.assert_allclose(by_itk[:, 4:-4, 4:-6], ours[:, 4:-4, 4:-6], atol=1)
    assert ours[:, 4:-4, 4:-6].std() > 10


def test_the_line_for_pictures_keeps_the_spacing_of_a_photograph(
    tmp_path, monkeypatch, registering
):
    save_picture(tmp_path / "a.jpg")
    photograph = retreg.read_image(tmp_path / "a.jpg").array
    grid = Grid((64, 48, 1), np.diag([0.0125, 0.0125, 1, 1]))
    retreg.write_image(tmp_path / "fixed.nrrd", Image(photograph, grid))
    save_picture(tmp_path / "moving.jpg", 72)
    pixels_from_mm = np.diag([80.0, 80, 1, 1])
    registering(Affine(pixels_from_mm))
    assert register(tmp_path, "fixed.nrrd", "moving.jpg") == 0
    monkeypatch.chdir(tmp_path)
    by_itk = warped_by(lines_of_the_page()[1])
    np.testing.assert_allclose(by_itk, photograph[:, 0], atol=1)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["fixed"]["spacing"] == [0.0125, 0.0125, 1]
    assert result["moving"]["spacing"] == [1, 1, 1]
    assert (result["fixed"]["unit"], result["moving"]["unit"]) == ("mm", "px")


def test_the_line_for_volumes_works_as_written(tmp_path, monkeypatch, registering):
    retreg.write_image(tmp_path / "fixed.nii.gz", a_volume())
    retreg.write_image(tmp_path / "moving.nii.gz", a_volume())
    registering(shift(4, -3, 3))
    assert register(tmp_path, "fixed.nii.gz", "moving.nii.gz") == 0
    monkeypatch.chdir(tmp_path)
    by_itk = warped_by(lines_of_the_page()[0])
    ours = retreg.read_image("out/warped.nrrd").array[0]
    np.testing.assert_allclose(by_itk[0, 2:-2, 3:-3, 3:-3], ours[2:-2, 3:-3, 3:-3], atol=1)
    assert (ours[-1] == -1000).all()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    np.testing.assert_allclose(result["fixed"]["spacing"], [2, 1.5, 3])
    assert result["fixed"]["size"] == [25, 30, 12]
    assert result["notes"] == []


def warped_by(line: str) -> np.ndarray:
    """(channels, …) of what a line of the page leaves in warped."""
    names = {"SimpleITK": SimpleITK, "retreg": retreg}
    exec(line, names)
    values = SimpleITK.GetArrayFromImage(names["warped"])
    if names["warped"].GetNumberOfComponentsPerPixel() == 1:
        return values[None]
    return np.moveaxis(values, -1, 0)[:, 0]


def test_the_page_has_a_line_for_volumes_and_one_for_pictures():
    assert len(lines_of_the_page()) == 2


@pytest.mark.parametrize(("options", "value"), [([], -1000), (["--fill", "-5"], -5),
                                                (["--fill", "0"], 0)])  # fmt: skip
def test_beyond_the_moving_image_lies_its_background_or_the_chosen_value(
    tmp_path, registering, options, value
):
    retreg.write_image(tmp_path / "a.nrrd", a_volume())
    registering(shift(20, 0, 0))
    assert register(tmp_path, "a.nrrd", "a.nrrd", *options) == 0
    warped = retreg.read_image(tmp_path / "out" / "warped.nrrd").array
    assert (warped[..., -10:] == value).all()


def test_a_fill_that_the_voxels_cannot_hold_is_refused_before_the_work(
    tmp_path, registering, capsys
):
    retreg.write_image(tmp_path / "a.nrrd", a_volume())
    requests = registering(shift(0, 0, 0))
    assert register(tmp_path, "a.nrrd", "a.nrrd", "--fill", "1e6") == 2
    assert "int16" in capsys.readouterr().err
    assert requests == []


def contradicting(path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 99, (12, 20, 20), np.int16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path))
    content = bytearray(path.read_bytes())
    content[252:256] = b"\1\0\1\0"  # both forms hold
    content[268:272] = np.float32(40).tobytes()  # the qform lies 40 mm to the right
    path.write_bytes(content)


@pytest.mark.parametrize(("options", "x"), [([], 0), (["--nifti-geometry", "sform"], 0),
                                            (["--nifti-geometry", "qform"], -40)])  # fmt: skip
def test_a_contradiction_of_a_nifti_file_is_told_and_decided(
    tmp_path, registering, options, x
):
    contradicting(tmp_path / "a.nii")
    requests = registering(shift(0, 0, 0))
    assert register(tmp_path, "a.nii", "a.nii", *options) == 0
    assert requests[0].fixed.grid.world_from_index[0, 3] == pytest.approx(x)
    notes = notes_on(requests[0].fixed, requests[0].moving)
    assert len(notes) == 2
    assert notes[0].startswith("Of the fixed image, the header contradicts itself")


@pytest.mark.parametrize("which", ["fixed", "moving", "out"])
def test_a_name_that_is_no_text_is_refused_before_any_work(tmp_path, which):
    names = {"fixed": b"a.nrrd", "moving": b"b.nrrd", "out": b"out", which: b"\xe4.nrrd"}
    retreg.write_image(tmp_path / "plain.nrrd", a_volume())
    for role in ("fixed", "moving"):
        target = tmp_path / os.fsdecode(names[role])
        target.write_bytes((tmp_path / "plain.nrrd").read_bytes())
    code = (
        "import sys; from retreg.cli import main; from retreg_server.registration import engine\n"
        "engine.register = lambda *_: sys.exit('it began to work')\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "register", names["fixed"], names["moving"], "-o",
         names["out"]], cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"not valid UTF-8" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda out: out.write_text("a file"), "output folder"),
        (lambda out: (out / "result.json").mkdir(parents=True), "result.json is a folder"),
        (lambda out: (out / "fixed.nrrd").mkdir(parents=True), "fixed.nrrd is a folder"),
    ],
)
def test_an_output_folder_that_will_not_do_is_refused_before_the_work(
    tmp_path, registering, capsys, prepare, words
):
    retreg.write_image(tmp_path / "a.nrrd", a_volume())
    prepare(tmp_path / "out")
    requests = registering(shift(0, 0, 0))
    assert register(tmp_path, "a.nrrd", "a.nrrd") == 2
    assert words in capsys.readouterr().err
    assert requests == []


def test_a_folder_of_a_sweep_that_cannot_be_made_is_refused_before_the_work(
    tmp_path, monkeypatch, capsys
):
    retreg.write_image(tmp_path / "a.nrrd", a_volume())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "smoothing-0.1").write_text("a file")
    requests = []
    monkeypatch.setattr("retreg_server.registration.engine.register_sweep", requests.append)
    assert register(tmp_path, "a.nrrd", "a.nrrd", "--smoothing", "0,0.1") == 2
    assert "smoothing-0.1 cannot be written" in capsys.readouterr().err
    assert requests == []


def test_a_disk_without_room_is_found_before_the_work(tmp_path):
    retreg.write_image(tmp_path / "a.nrrd", a_volume())
    code = (
        "import resource, sys; from retreg.cli import main\n"
        "from retreg_server.registration import engine\n"
        "engine.register = lambda *_: sys.exit('it began to work')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "register", "a.nrrd", "a.nrrd", "-o", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "has no room" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
