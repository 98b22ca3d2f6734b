"""`retreg mosaic`: known places are met, strangers are named, what cannot be is said."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from cut_views import cut, seam_errors

from retreg.errors import RegistrationError
from retreg.files import read_image, read_transform, write_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg.inverse import inverse_of
from retreg.resample import resample
from retreg_server.cli import main
from retreg_server.mosaic import outputs, pairs, placement
from retreg_server.phantoms.fundus import make_fundus_pair

SIZE = 420
PLACES = {"left.png": (0.36, 0.42), "right.png": (0.62, 0.45), "below.png": (0.47, 0.66)}


def write(folder, views):
    for name, view in views.items():
        image = Image(np.moveaxis(view, -1, 0)[:, None], Grid.of_picture(*view.shape[1::-1]))
        write_image(folder / name, image)


def cut_all(large, places, size, scale, seed):
    rng = np.random.default_rng(seed)
    views, cuts = {}, {}
    for name, place in places.items():
        views[name], cuts[name] = cut(large, place, size, scale, rng)
    return views, cuts


@pytest.fixture(scope="module")
def a_mosaic(tmp_path_factory):
    """Three views of one eye, one of another, a blank one; what was cut, and what came of it."""
    folder = tmp_path_factory.mktemp("views")
    eye = make_fundus_pair(2, size=800, elastic_px=0).fixed
    views, cuts = cut_all(np.moveaxis(eye.array[:, 0], 0, -1), PLACES, SIZE, 1.1, 3)
    stranger = make_fundus_pair(5, size=SIZE, elastic_px=0).fixed
    views["stranger.png"] = np.moveaxis(stranger.array[:, 0], 0, -1)
    views["blank.png"] = np.full((SIZE, SIZE, 3), 7, np.uint8)
    write(folder, views)
    out = folder / "out"
    out.mkdir()
    (out / "mosaic.png").write_text("of an earlier run")
    (out / "mosaic.json").write_text('{"views": []}')
    (out / "notes.txt").write_text("of the user")
    (out / "transforms").mkdir()
    (out / "transforms" / "own.h5").write_text("of the user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "TRIES", 1)
        status = main(["mosaic", *(str(folder / name) for name in views), "-o", str(out)])
    return out, cuts, status


def nothing_found(*_):
    raise RegistrationError("Nothing was found.")


def report(out):
    return json.loads((out / "mosaic.json").read_text("utf-8"))


def test_views_of_one_eye_meet_where_they_were_cut(a_mosaic):
    out, cuts, _ = a_mosaic
    errors = seam_errors(out, cuts) * 1000 / SIZE
    assert len(errors) > 1000
    assert np.median(errors) <= 1
    assert np.percentile(errors, 95) <= 3


def test_what_does_not_belong_is_named_and_the_status_tells(a_mosaic):
    out, _, status = a_mosaic
    said = report(out)
    assert status == 3
    assert set(said["left_out"]) == {"stranger.png", "blank.png"}
    assert "overlaps no other view" in said["left_out"]["stranger.png"]
    assert "blank" in said["left_out"]["blank.png"]
    verdicts = {view["name"]: view["verdict"] for view in said["views"]}
    assert [verdicts.pop(name) for name in said["left_out"]] == ["fail", "fail"]
    assert set(verdicts.values()) == {"accept"}


def test_only_accepted_pairs_hold_it_together(a_mosaic):
    said = report(a_mosaic[0])
    used = [pair for pair in said["pairs"] if pair["used"]]
    assert len(used) >= 2
    assert {pair["verdict"] for pair in used} == {"accept"}
    assert any(not pair["used"] for pair in said["pairs"])
    assert 0 < said["seams"]["median"] < 1
    assert said["unit"] == "px"


def test_the_picture_holds_all_and_is_black_elsewhere(a_mosaic):
    out, _, _ = a_mosaic
    picture, mask = read_image(out / "mosaic.png"), read_image(out / "mask.png")
    assert list(picture.grid.size[:2]) == report(out)["size"]
    assert picture.grid.size[0] > 1.4 * SIZE
    shown = mask.array[0, 0] > 0
    assert 0.5 < shown.mean() < 0.95
    assert not picture.array[:, 0, ~shown].any()
    assert picture.array[:, 0, shown].mean() > 30


def test_a_view_can_be_brought_onto_the_mosaic_by_its_transform(a_mosaic, tmp_path):
    out, _, _ = a_mosaic
    view = report(out)["views"][0]
    words = [str(out / view["transform"]), "--like", str(out / "mosaic.png")]
    source = out.parent / view["name"]
    assert main(["apply", *words, str(source), "-o", str(tmp_path / "placed.png")]) == 0
    placed = read_image(tmp_path / "placed.png").array[1, 0]
    mosaic = read_image(out / "mosaic.png").array[1, 0]
    inside = cv2.erode((placed > 20).astype(np.uint8), np.ones((25, 25))) > 0
    assert np.corrcoef(placed[inside], mosaic[inside])[0, 1] > 0.9


def test_it_leaves_no_more_than_it_says_and_what_is_not_its_own(a_mosaic):
    out, _, _ = a_mosaic
    names = {"mosaic.png", "mask.png", "overview.png", "mosaic.json", "transforms", "notes.txt"}
    assert {path.name for path in out.iterdir()} == names
    assert len(list((out / "transforms").iterdir())) == 3 + 1
    outputs.clear(out)
    assert {path.name for path in out.iterdir()} == {"notes.txt", "transforms"}
    assert [path.name for path in (out / "transforms").iterdir()] == ["own.h5"]


def test_views_that_share_nothing_make_no_mosaic(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pairs.engine, "register", nothing_found)
    rng = np.random.default_rng(0)
    views = {f"{n}.png": rng.integers(0, 255, (64, 64, 3), np.uint8) for n in range(2)}
    write(tmp_path, views)
    out = tmp_path / "out"
    assert main(["mosaic", *(str(tmp_path / name) for name in views), "-o", str(out)]) == 3
    complaint = capsys.readouterr().err
    assert "No two of the pictures overlap" in complaint
    assert "Nearest are 01-0 and 02-1: Nothing was found." in complaint
    assert not any(out.iterdir())


@pytest.mark.parametrize("name", ["mask.png", "mosaic.json"])
def test_files_of_others_with_the_names_of_a_mosaic_are_kept(tmp_path, capsys, name):
    write(tmp_path, {f"{n}.png": np.zeros((64, 64, 3), np.uint8) for n in range(2)})
    views, out = [str(tmp_path / f"{n}.png") for n in range(2)], tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    assert main(["mosaic", *views, "-o", str(out)]) == 2
    assert f"{name} in out is not of an earlier mosaic" in capsys.readouterr().err
    assert (out / name).read_text() == "mine"


@pytest.mark.parametrize(("ends", "status", "left"), [
    (KeyboardInterrupt, 130, {"mosaic.json", "mosaic.png"}),
    (RegistrationError("Nothing was found."), 3, set()),
])  # fmt: skip
def test_an_earlier_mosaic_goes_only_where_its_views_make_none(
    tmp_path, monkeypatch, ends, status, left
):
    def ended(*_args: object) -> None:
        raise ends

    write(tmp_path, {f"{n}.png": np.zeros((64, 64, 3), np.uint8) for n in range(2)})
    views, out = [str(tmp_path / f"{n}.png") for n in range(2)], tmp_path / "out"
    out.mkdir()
    (out / "mosaic.json").write_text('{"views": []}')
    (out / "mosaic.png").write_bytes(b"")
    monkeypatch.setattr(placement, "make_mosaic", ended)
    assert main(["mosaic", *views, "-o", str(out)]) == status
    assert {path.name for path in out.iterdir()} == left


def test_a_view_that_a_result_would_replace_is_refused_and_kept(tmp_path, capsys):
    write(tmp_path, {"mosaic.png": np.zeros((16, 16, 3), np.uint8)})
    kept = (tmp_path / "mosaic.png").read_bytes()
    views = [str(tmp_path / "mosaic.png")] * 2
    assert main(["mosaic", *views, "-o", str(tmp_path)]) == 2
    assert "would be replaced by a result" in capsys.readouterr().err
    assert (tmp_path / "mosaic.png").read_bytes() == kept


def test_a_name_that_is_taken_by_a_folder_is_told_before_the_work(tmp_path, capsys):
    write(tmp_path, {"a.png": np.zeros((16, 16, 3), np.uint8)})
    (tmp_path / "out" / "overview.png").mkdir(parents=True)
    views = [str(tmp_path / "a.png")] * 2
    assert main(["mosaic", *views, "-o", str(tmp_path / "out")]) == 2
    assert "overview.png is a folder" in capsys.readouterr().err


def test_views_with_a_scale_keep_it_also_mirrored_and_of_another_kind(a_mosaic, tmp_path):
    folder = a_mosaic[0].parent
    left, right = (read_image(folder / name).array for name in ("left.png", "right.png"))
    place = np.array([[-0.02, 0, 0, 9], [0, 0.02, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]])
    mirrored = Image(left[..., ::-1].copy(), Grid((SIZE, SIZE, 1), place))
    write_image(tmp_path / "left.nrrd", mirrored)
    deep = Image(right[1:2].astype(np.uint16) * 257, Grid.of_picture(SIZE, SIZE))
    write_image(tmp_path / "right.png", deep)
    words = [str(tmp_path / name) for name in ("left.nrrd", "right.png")]
    assert main(["mosaic", *words, "-o", str(tmp_path / "out"), "--longest", "300"]) == 0
    said = report(tmp_path / "out")
    assert said["unit"] == "mm"
    assert max(said["size"]) == 300
    assert said["seams"]["median"] < 0.02
    exact = read_image(tmp_path / "out" / "mosaic.nrrd")
    assert exact.array.dtype == np.uint16
    assert len(exact.array) == 3
    assert np.linalg.det(exact.grid.world_from_index[:3, :3]) < 0
    transform = read_transform(tmp_path / "out" / "transforms" / "01-left.h5")
    shown = resample(exact, inverse_of(transform), mirrored.grid).array[1, 0]
    view = mirrored.array[1, 0]
    inside = (shown > 0) & (view > 20)
    assert inside.mean() > 0.5
    assert np.corrcoef(shown[inside], view[inside])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a.png"], "1 views were given"),
        (["a.png"] * 61, "61 views were given"),
        (["a.png", "volume.nrrd"], "volume.nrrd is a volume"),
        (["a.png", "a.png", "--longest", "5"], "--longest 5"),
        (["a.png", "missing.png"], "no file 'missing.png'"),
    ],
)
def test_what_cannot_be_a_mosaic_is_said(tmp_path, capsys, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"a.png": np.zeros((16, 16, 3), np.uint8)})
    write_image("volume.nrrd", Image(np.zeros((1, 4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4))))
    assert main(["mosaic", *words, "-o", "out"]) == 2
    assert sentence in capsys.readouterr().err


def test_four_views_of_a_real_picture_meet_and_a_foreign_eye_is_left_out(
    retreg_data, tmp_path, monkeypatch
):
    monkeypatch.setattr(pairs, "TRIES", 1)
    large = cv2.imread(str(retreg_data / "retina/vessels/HRF_01_h.jpg"))[..., ::-1]
    large = cv2.resize(large, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    places = {f"{n}.png": (0.4 + 0.22 * (n % 2), 0.36 + 0.28 * (n // 2)) for n in range(4)}
    views, cuts = cut_all(large, places, 500, 1.4, 4)
    write(tmp_path, views)
    foreign = retreg_data / "retina/vessels/CHASE_01L.jpg"
    words = [*(str(tmp_path / name) for name in views), str(foreign)]
    assert main(["mosaic", *words, "-o", str(tmp_path / "out"), "--quiet"]) == 3
    assert set(report(tmp_path / "out")["left_out"]) == {"CHASE_01L.jpg"}
    errors = seam_errors(tmp_path / "out", cuts) * 1000 / 500
    assert np.median(errors) <= 1
    assert np.percentile(errors, 99) <= 5
