"""`retreg series`: all on one canvas, strangers named, changes found, taken up again."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from PIL import Image as Picture

from retreg.errors import OptionError
from retreg.files import write_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.batch.series import Frame, change_of, series_pairs
from retreg_server.batch.series_page import SERIES_FILES
from retreg_server.cli import main
from retreg_server.phantoms.fundus import make_fundus_pair

SPOT = slice(150, 175), slice(150, 175)


@pytest.fixture(scope="module")
def a_series(tmp_path_factory):
    """A first visit, a second one that is turned, a third with a spot, and a blank picture."""
    folder = tmp_path_factory.mktemp("visits")
    pair = make_fundus_pair(2, size=320, rotation_deg=25, elastic_px=0, moving="colour")
    third = pair.fixed.array.copy()
    third[:, 0, *SPOT] = 250
    blank = np.zeros((1, 1, 320, 320), np.uint8)
    arrays = {"a": pair.fixed.array, "b": pair.moving.array, "c": third, "blank": blank}
    for name, array in arrays.items():
        write_image(folder / f"{name}.png", Image(array, Grid.of_picture(320, 320)))
    words = [str(folder / f"{name}.png") for name in arrays]
    out = folder / "out"
    return words, out, main(["series", *words, "-o", str(out), "--transform", "affine"])


def test_a_series_lies_on_one_canvas_and_what_cannot_is_named(a_series):
    _, out, status = a_series
    assert status == 3
    assert all((out / name).stat().st_size > 0 for name in SERIES_FILES)
    with Picture.open(out / "animation.gif") as animation:
        assert animation.n_frames == 3
        assert animation.size == (320, 320)
    with (out / "results.csv").open() as file:
        verdicts = {row["moving"]: row["verdict"] for row in csv.DictReader(file)}
    assert verdicts == {"b.png": "accept", "c.png": "accept", "blank.png": "error"}
    page = (out / "index.html").read_text()
    assert re.search(r"blank\.png was left out: .*blank", page)
    assert not re.search(r"https?://|src=\"(?!data:)[^\"]", page)


def test_the_change_is_where_something_changed(a_series):
    _, out, _ = a_series
    change = np.asarray(Picture.open(out / "change.png")).astype(float)
    inside = change[SPOT][5:-5, 5:-5]
    around = np.delete(change[100:220, 100:220], np.s_[45:80], axis=0)
    assert inside.mean() > 4 * around.mean()


def test_a_series_goes_on_where_it_stopped(a_series):
    words, out, _ = a_series
    made = {path: path.stat().st_mtime_ns for path in out.glob("*/result.json")}
    (out / "c" / "result.json").unlink()
    assert main(["series", *words, "-o", str(out), "--transform", "affine", "--quiet"]) == 3
    again = {path.parent.name for path, at in made.items() if path.stat().st_mtime_ns != at}
    assert again == {"c"}


def test_the_canvas_may_hold_all_that_any_picture_shows(a_series):
    words, out, _ = a_series
    again = ["series", *words, "-o", str(out), "--transform", "affine", "--quiet"]
    try:
        assert main([*again, "--canvas", "union"]) == 3
        with Picture.open(out / "animation.gif") as animation:
            assert animation.n_frames == 3
            union = np.array(animation.size)
    finally:
        assert main(again) == 3
    corner = 320 * (np.cos(np.deg2rad(25)) + np.sin(np.deg2rad(25)))  # of a square that is turned
    assert (abs(union - corner) < 25).all()


def test_a_union_of_volumes_is_refused_before_the_work(tmp_path, capsys):
    grid = Grid((8, 8, 8), np.eye(4))
    write_image(tmp_path / "a.nrrd", Image(np.zeros((1, 8, 8, 8), np.uint8), grid))
    words = [str(tmp_path / "a.nrrd")] * 2
    assert main(["series", *words, "-o", str(tmp_path / "out"), "--canvas", "union"]) == 2
    assert "belongs to pictures" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_go_to_the_middle_if_wanted(tmp_path):
    images = [tmp_path / f"{n}.png" for n in range(5)]
    pairs = series_pairs(images, 2)
    assert [(pair.fixed, pair.moving) for pair in pairs] == [
        (images[2], images[n]) for n in (0, 1, 3, 4)
    ]


def test_one_image_is_no_series(tmp_path):
    with pytest.raises(OptionError, match="two images"):
        series_pairs([tmp_path / "a.png"], 0)


def test_another_exposure_is_no_change_and_blind_places_have_none():
    rng = np.random.default_rng(0)
    grey = rng.integers(20, 90, (20, 30, 1)).repeat(3, axis=2).astype(np.uint8)
    seen = np.ones((20, 30), bool)
    half = seen.copy()
    half[:, :10] = False
    change = change_of([Frame("a", "", grey, seen), Frame("b", "", 2 * grey + 15, half)])
    assert np.isnan(change[:, :10]).all()
    assert change[:, 10:].max() < 1e-3
