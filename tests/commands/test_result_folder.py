"""The folder of a result says what it is, carries both ways, and holds nothing of other runs."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import Cancelled, EmptyImageError, RegistrationError, ServerError
from retreg.files import read_image, write_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine, DisplacementField
from retreg_server.cli import main
from retreg_server.phantoms.fundus import make_fundus_pair

PLACES = np.array([[4.0, 5, 0], [10, 12, 0]])
POINTS = Keypoints(PLACES, np.array([0.5, 1]), np.array([True, False]))
PICTURE = Grid.of_picture(64, 48)
VOLUME = Grid((20, 24, 16), np.diag([2.0, 1.5, 3, 1]))
RNG = np.random.default_rng(2)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def finding(monkeypatch):
    """Make `retreg register` find a transform, or raise an error, at once."""

    def found(transform, numbers=None):
        def register(_request, _report):
            if isinstance(transform, Exception):
                raise transform
            quality = Quality(numbers or {"overlap": 1.0}, "check", "A reason.")
            return RegistrationResult(transform, POINTS, POINTS, quality, {"model": "none"})

        monkeypatch.setattr("retreg_server.registration.engine.register", register)
        monkeypatch.setattr(
            "retreg_server.registration.engine.register_sweep",
            lambda *given: tuple(register(given[0], given[2]) for _ in given[1]),
        )

    return found


def save(name, grid):
    kind = np.uint8 if name.endswith("png") else np.int16
    write_image(name, Image(RNG.integers(0, 200, (1, *grid.shape)).astype(kind), grid))
    return name


def register(*words):
    return main(["register", *words, "-o", "out"])


def result():
    return json.loads(Path("out/result.json").read_text(encoding="utf-8"))


def a_bend(grid):
    vectors = RNG.normal(scale=1.0, size=(3, *grid.coarsened(8).shape))
    if grid.is_plane:
        vectors[2] = 0
    return DisplacementField(vectors, grid.coarsened(8))


def a_turn(degrees, shift=(3, -2, 0)):
    a = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = 1.1 * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    matrix[:3, 3] = shift
    return Affine(matrix)


@pytest.mark.parametrize("grid", [PICTURE, VOLUME], ids=["picture", "volume"])
@pytest.mark.parametrize("curved", [False, True])
def test_the_way_back_undoes_the_way_there_and_says_how_well(finding, grid, curved):
    finding(a_bend(grid) if curved else a_turn(25))
    names = [save(f"{n}.{'png' if grid.is_plane else 'nrrd'}", grid) for n in "fm"]
    assert register(*names) == 0
    there, back = (sitk.ReadTransform(f"out/transform{n}.h5") for n in ("", "_backward"))
    lowest, highest = (8, 40) if grid.is_plane else (5, 12)
    points = grid.world(RNG.uniform(lowest, highest, (30, 3)) * (1, 1, not grid.is_plane))
    found = [back.TransformPoint(there.TransformPoint(point.tolist())) for point in points]
    np.testing.assert_allclose(found, points, atol=0.2)
    said = result()["backward"]
    assert said["unit"] == ("px" if grid.is_plane else "mm")
    assert np.linalg.norm(found - points, axis=1).max() < said["largest_residual"] * 2 + 1e-4
    assert said["largest_residual"] < 0.5


def test_the_result_says_which_files_it_is_of(finding):
    finding(Affine.identity())
    names = save("a.png", PICTURE), save("b.png", PICTURE)
    assert register(*names) == 0
    for role, name in zip(("fixed", "moving"), names, strict=True):
        said = result()[role]
        content = Path(name).read_bytes()
        assert (said["name"], said["sha256"]) == (name, hashlib.sha256(content).hexdigest())


def test_the_result_says_what_the_transform_does_in_true_units(finding):
    numbers = {"displacement_mean_mm": 3.0, "inverse_consistency_p95_mm": 0.5, "overlap": 1.0}
    finding(a_turn(-70), numbers)
    assert register(save("a.png", PICTURE), save("b.png", PICTURE)) == 0
    said = result()["placement"]
    assert said["rotation_deg"] == pytest.approx(-70)
    assert said["scale"] == pytest.approx(1.1)
    middle = np.array([31.5, 23.5, 0])
    np.testing.assert_allclose(said["shift"], a_turn(-70)(middle[None])[0] - middle)
    np.testing.assert_allclose(said["moving_from_fixed"], a_turn(-70).moving_from_fixed)
    assert (said["unit"], said["exact"], said["mirrored"]) == ("px", True, False)
    quality = result()["quality"]
    assert quality == {"displacement_mean_px": 3, "inverse_consistency_p95_px": 0.5, "overlap": 1}
    assert register(save("a.nrrd", VOLUME), save("b.nrrd", VOLUME)) == 0
    assert "displacement_mean_mm" in result()["quality"]


def test_keypoints_are_a_table_too(finding):
    finding(Affine.identity())
    assert register(save("a.png", PICTURE), save("b.png", PICTURE)) == 0
    with Path("out/keypoints.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert [float(second[f"moving_{axis}"]) for axis in "xyz"] == [10, 12, 0]
    assert (first["label"], first["weight"], first["inlier"]) == ("1", "0.5", "1")
    assert second["inlier"] == "0"


def files(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_run_clears_what_an_earlier_one_left_and_nothing_else(finding, here):
    finding(Affine.identity())
    pictures = save("a.png", PICTURE), save("b.png", PICTURE)
    assert register(*pictures, "--maps") == 0
    assert "map_jacobian.nrrd" in files(here / "out")
    (here / "out" / "notes.txt").write_text("mine")
    (here / "out" / "map_of_town.png").write_text("mine")
    assert register(save("a.nrrd", VOLUME), save("b.nrrd", VOLUME)) == 0
    left = files(here / "out")
    assert {"notes.txt", "map_of_town.png"} < left
    assert not {"warped.png", "map_jacobian.nrrd", "map_jacobian.png"} & left


def test_a_single_run_clears_a_sweep_and_the_other_way_round(finding, here):
    finding(Affine.identity())
    pictures = save("a.png", PICTURE), save("b.png", PICTURE)
    sweep = ["--model", "keymorph-fundus", "--transform", "tps", "--smoothing", "0,1"]
    assert register(*pictures, *sweep) == 0
    assert (here / "out" / "smoothing-0" / "transform.h5").is_file()
    assert register(*pictures) == 0
    assert not list((here / "out").glob("smoothing-*"))
    (here / "out" / "mine.txt").write_text("mine")
    assert register(*pictures, *sweep) == 0
    assert {path.name for path in (here / "out").iterdir()} == {
        "smoothing-0", "smoothing-1", "mine.txt"
    }  # fmt: skip


@pytest.mark.parametrize(("error", "status"), [
    (RegistrationError("Nothing was found."), 3), (EmptyImageError("It is blank."), 2),
    (Cancelled("Stopped."), 130), (ZeroDivisionError(), 70), (ServerError("It is away."), 4),
])  # fmt: skip
def test_a_run_without_a_result_leaves_no_earlier_one(finding, here, error, status):
    finding(Affine.identity())
    pictures = save("a.png", PICTURE), save("b.png", PICTURE)
    assert register(*pictures) == 0
    finding(error)
    assert register(*pictures) == status
    assert files(here / "out") == set()


def test_a_mistyped_line_leaves_an_earlier_result_as_it_was(finding, here):
    finding(Affine.identity())
    pictures = save("a.png", PICTURE), save("b.png", PICTURE)
    assert register(*pictures) == 0
    assert register("a.png", "none.png") == 2
    assert register(*pictures, "--model", "none") == 2
    assert "transform.h5" in files(here / "out")


@pytest.mark.parametrize("name", ["fixed.nrrd", "warped.png", "map_error.png"])
def test_an_image_in_the_way_of_a_result_is_not_replaced(finding, here, capsys, name):
    finding(Affine.identity())
    (here / "out").mkdir()
    save(f"out/{name}", PICTURE)
    before = (here / "out" / name).read_bytes()
    assert register(save("a.png", PICTURE), f"out/{name}") == 2
    assert "choose another folder" in capsys.readouterr().err
    assert (here / "out" / name).read_bytes() == before


def test_quiet_says_nothing_and_json_says_everything_in_a_line(finding, capsys):
    finding(Affine.identity())
    pictures = save("a.png", PICTURE), save("b.png", PICTURE)
    assert register(*pictures, "--quiet") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert register(*pictures, "--json") == 0
    line = json.loads(capsys.readouterr().out)
    assert line.pop("folder") == "out"
    assert line == result()


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("retreg 0.")


@pytest.mark.parametrize("words", [
    ["--smoothing", "0.5"], ["--transform", "affine", "--smoothing", "0.5"],
    ["--transform", "rigid", "--option", "smoothing=1"],
    ["--model", "keymorph-fundus", "--smoothing", "0,1"],
    ["--model", "smoothproper-fundus", "--transform", "affine", "--option", "refine=false"],
])  # fmt: skip
def test_an_option_that_does_nothing_is_refused(finding, capsys, words):
    finding(Affine.identity())
    assert register(save("a.png", PICTURE), save("b.png", PICTURE), *words) == 2
    assert "does nothing in a transform that is" in capsys.readouterr().err


def test_a_transform_that_is_named_twice_and_differently_is_refused(finding, capsys):
    finding(Affine.identity())
    pictures = save("a.png", PICTURE), save("b.png", PICTURE)
    words = ["--transform", "affine", "--option", "transform=rigid"]
    assert register(*pictures, *words) == 2
    assert "transform was given twice, as affine and as rigid" in capsys.readouterr().err


def test_an_option_that_does_something_is_taken(finding):
    finding(Affine.identity())
    pictures = save("a.png", PICTURE), save("b.png", PICTURE)
    assert register(*pictures, "--transform", "tps", "--smoothing", "0.5") == 0


def test_the_same_image_twice_is_told(here, capsys):
    pair = make_fundus_pair(11, size=400, rotation_deg=0, elastic_px=0)
    write_image("a.png", pair.fixed)
    write_image("copy.png", read_image("a.png"))
    assert register("a.png", "copy.png") == 0
    assert "Note: The two images are the same, value by value." in capsys.readouterr().out
    assert result()["notes"] == ["The two images are the same, value by value."]
    assert files(here / "out") >= {"transform_backward.h5", "keypoints.csv"}


@pytest.mark.parametrize(("kind", "channels"), [
    ("u1", 2), ("u2", 4), ("i1", 1), ("i2", 3), ("u4", 1), ("i8", 4), ("f2", 1), ("f4", 3),
    ("f8", 2),
])  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_a_picture_of_every_type_leaves_its_results(finding, here, kind, channels):
    finding(a_turn(10))
    values = RNG.integers(0, 120, (channels, *PICTURE.shape)).astype(kind)
    if kind[0] == "f":
        values[:, :, :5] = np.nan
    image = Image(values, Grid(PICTURE.size, np.diag([0.5, 0.5, 1, 1])))
    write_image("a.nrrd", image)
    assert register("a.nrrd", "a.nrrd") == 0
    fits = kind in ("u1", "u2") and channels != 2
    assert (here / "out" / "warped.png").exists() == fits
    warped = read_image("out/warped.nrrd").array
    assert warped.shape == values.shape
    assert np.nanmax(warped) > 100
