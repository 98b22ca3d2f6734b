"""`retreg batch`: pairs by table and by names, work shared, interrupted, taken up again, shown."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from retreg.errors import OptionError
from retreg.files import write_image, write_transform
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.batch.page import write_page
from retreg_server.batch.pairs import pairs_in_folder, pairs_in_table
from retreg_server.batch.table import worst_first
from retreg_server.cli import main
from retreg_server.phantoms.fundus import make_fundus_pair


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """A folder with two right pairs, one of two eyes, a blank one and a fixed image alone."""
    folder = tmp_path_factory.mktemp("eyes")
    pairs = {n: make_fundus_pair(n, size=320, rotation_deg=20, elastic_px=0) for n in (1, 2)}
    for n, pair in pairs.items():
        write_image(folder / f"{n}_A.png", pair.fixed)
        write_image(folder / f"{n}_B.png", pair.moving)
    write_image(folder / "other_A.png", pairs[1].fixed)
    write_image(folder / "other_B.png", pairs[2].moving)
    blank = Image(np.zeros((1, 1, 320, 320), np.uint8), Grid.of_picture(320, 320))
    write_image(folder / "blank_A.png", pairs[1].fixed)
    write_image(folder / "blank_B.png", blank)
    write_image(folder / "alone_A.png", pairs[1].fixed)
    return folder


@pytest.fixture(scope="module", autouse=True)
def threads_of_opencv():
    """This process has threads that its children do not have, as where it showed a picture."""
    cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 5)


@pytest.fixture(scope="module")
def run_once(eyes, tmp_path_factory):
    out = tmp_path_factory.mktemp("batch")
    status = main(["batch", str(eyes), "--pair", "*_A.png", "*_B.png", "-o", str(out)])
    return status, out


def rows(out):
    with (out / "results.csv").open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_every_pair_has_a_row_with_what_came_of_it(run_once):
    status, out = run_once
    found = rows(out)
    assert status == 3
    assert set(found) == {"1", "2", "other", "blank"}
    assert [found[n]["verdict"] for n in ("1", "2", "blank")] == ["accept", "accept", "error"]
    assert found["other"]["verdict"] in ("fail", "error")
    assert "blank" in found["blank"]["reason"]
    for name in "12":
        truth = make_fundus_pair(int(name), size=320, rotation_deg=20, elastic_px=0).truth
        middle = np.array([[159.5, 159.5, 0]])
        shift = [float(found[name][f"shift_{axis}"]) for axis in "xyz"]
        np.testing.assert_allclose(shift, (truth(middle) - middle)[0], atol=2)
        turned = truth(middle + [1, 0, 0]) - truth(middle)
        angle = np.degrees(np.arctan2(turned[0, 1], turned[0, 0]))
        assert float(found[name]["rotation_deg"]) == pytest.approx(angle, abs=1)
        assert found[name]["unit"] == "px"


def test_every_pair_has_a_folder_as_register_writes_it(run_once):
    _, out = run_once
    for name in "12":
        files = {path.name for path in (out / name).iterdir()}
        assert {"transform.h5", "warped.png", "result.json", "thumbnail.jpg"} < files
    assert {path.name for path in (out / "blank").iterdir()} == {"error.json"}


def test_the_gallery_shows_the_worst_first_and_every_picture_exists(run_once):
    _, out = run_once
    page = (out / "index.html").read_text(encoding="utf-8")
    verdicts = re.findall(r'<article class="(\w+)"', page)
    assert verdicts == sorted(verdicts, key=["error", "fail", "check", "accept"].index)
    assert len(verdicts) == 4
    pictures = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(pictures) >= 5
    assert all((out / picture).is_file() for picture in pictures)
    for verdict in set(verdicts):
        assert f'value="{verdict}" checked' in page


def test_what_is_done_is_not_done_again_unless_the_files_or_the_order_change(
    run_once, eyes, tmp_path, capsys
):
    _, out = run_once
    table = tmp_path / "pairs.csv"
    (tmp_path / "a.png").write_bytes((eyes / "1_A.png").read_bytes())
    (tmp_path / "b.png").write_bytes((eyes / "1_B.png").read_bytes())
    table.write_text(f"fixed,moving,name\na.png,b.png,one\n{eyes}/2_A.png,{eyes}/2_B.png,two\n")
    words = ["batch", str(table), "-o", str(tmp_path / "out")]
    assert main(words) == 0
    stamps = {n: (tmp_path / "out" / n / "result.json").stat().st_mtime_ns for n in ("one", "two")}
    capsys.readouterr()
    assert main(words) == 0
    assert "2 of 2 pairs had been done before." in capsys.readouterr().out
    (tmp_path / "b.png").write_bytes((eyes / "1_A.png").read_bytes())
    assert main(words) == 0
    changed = {n: (tmp_path / "out" / n / "result.json").stat().st_mtime_ns for n in stamps}
    assert changed["two"] == stamps["two"]
    assert changed["one"] > stamps["one"]
    assert main([*words, "--transform", "rigid", "--workers", "1"]) == 0
    assert rows(tmp_path / "out")["two"]["transform"] == "rigid"
    assert out.is_dir()


def test_a_batch_that_was_killed_is_taken_up_where_it_was(eyes, tmp_path):
    command = [sys.executable, "-m", "retreg.cli", "batch", str(eyes), "--pair", "*_A.png",
               "*_B.png", "-o", str(tmp_path), "--workers", "1"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = time.monotonic()
    while not list(tmp_path.glob("*/result.json")):
        assert time.monotonic() - begun < 60
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    begun = time.monotonic()
    while any(is_alive(int(child)) for child in children):
        assert time.monotonic() - begun < 10, "a worker lives on"
        time.sleep(0.02)
    assert main(command[3:]) == 3
    assert set(rows(tmp_path)) == {"1", "2", "other", "blank"}
    for path, stamp in done.items():
        assert path.stat().st_mtime_ns == stamp, "done twice"


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_pair_whose_process_dies_does_not_stop_the_others(eyes, tmp_path, monkeypatch):
    from retreg_server.batch import one_pair

    real = one_pair.read_pair

    def deadly(fixed, moving, masks):
        if fixed[0].name == "2_A.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return real(fixed, moving, masks)

    monkeypatch.setattr(one_pair, "read_pair", deadly)
    words = ["batch", str(eyes), "--pair", "[12]_A.png", "[12]_B.png", "-o", str(tmp_path)]
    assert main(words) == 2  # brackets are no stars
    table = tmp_path / "t.csv"
    table.write_text(f"fixed;moving\n{eyes}/2_A.png;{eyes}/2_B.png\n{eyes}/1_A.png;{eyes}/1_B.png\n")
    assert main(["batch", str(table), "-o", str(tmp_path / "out"), "--workers", "2"]) == 3
    found = rows(tmp_path / "out")
    assert (found["2_A-2_B"]["verdict"], found["1_A-1_B"]["verdict"]) == ("error", "accept")
    assert "ended unexpectedly" in found["2_A-2_B"]["reason"]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize(("names", "rule", "expected"), [
    (["7_A.jpg", "7_B.jpg", "8_A.jpg", "9_B.jpg"], ("*_A.jpg", "*_B.jpg"), [("7", 1)]),
    (["p1/fixed.png", "p1/moving.tif", "p2/fixed.nii.gz", "p2/moving.nii.gz"], None,
     [("p1", 0), ("p2", 0)]),
    (["x_fixed.png", "x_moving.jpg"], None, [("x", 0)]),
    (["fixed/1.png", "moving/1.png", "fixed/2.png"], None, [("1", 1)]),
    (["s1/od/base.png", "s1/od/visit2.png"], ("*/*/base.png", "*/*/visit2.png"), [("s1-od", 0)]),
    (["s1_r_A.png", "s1_l_B.png", "s1_l_A.png"], ("*_A.png", "*_B.png"), [("s1_l", 1)]),
    (["a b ü_A.png", "a b ü_B.png"], ("*_A.png", "*_B.png"), [("a_b_ü", 0)]),
])  # fmt: skip
def test_images_that_belong_together_are_found_by_their_names(tmp_path, names, rule, expected):
    touch(tmp_path, *names)
    pairs, alone = pairs_in_folder(tmp_path, rule)
    assert [pair.name for pair in pairs] == [name for name, _ in expected]
    assert len(alone) == expected[0][1]
    assert all(pair.fixed.is_file() and pair.moving.is_file() for pair in pairs)
    assert all(pair.fixed != pair.moving for pair in pairs)


@pytest.mark.parametrize(
    "rule", [("A.png", "B.png"), ("*_A.png", "*_*_B.png"), ("*.x", "*.y"), None]
)
def test_a_rule_that_finds_nothing_is_told(tmp_path, rule):
    touch(tmp_path, "1_A.png", "1_B.png")
    with pytest.raises(OptionError, match=r"\*"):
        pairs_in_folder(tmp_path, rule)


def test_names_that_occur_twice_get_a_number_and_paths_count_from_the_table(tmp_path):
    table = tmp_path / "pairs.tsv"
    table.write_text("Fixed\tMoving\tname\nx/f.png\tx/m.png\t../up\ny/f.png\ty/m.png\t../up\n")
    first, second = pairs_in_table(table)
    assert (first.fixed, second.moving) == (tmp_path / "x/f.png", tmp_path / "y/m.png")
    assert (first.name, second.name) == ("up-001", "up-002")


@pytest.mark.parametrize(("words", "said"), [
    (["none.csv"], "cannot be read as a table"), (["empty.csv"], "no table of pairs"),
    (["half.csv"], "Line 3 of half.csv"), (["heads.csv"], "no table of pairs"),
    (["good.csv", "--pair", "*a", "*b"], "--pair belongs to a folder"),
    (["good.csv", "--workers", "0"], "--workers 0"),
    (["good.csv", "--option", "smoothing=1"], "--option belongs to a model"),
    (["good.csv", "--model", "auto-fundus", "--option", "smoothing=1"], "does nothing"),
    (["good.csv", "--model", "magic"], "magic"), (["wide.csv"], "Line 2 of wide.csv has more"),
    (["good.csv", "--model", "auto-fundus", "--transform", "affine", "--option", "transform=rigid"],
     "transform was given twice, as affine and as rigid"),
    (["good.csv", "--model", "keymorph-fundus", "--option", "refine=true", "--option",
      "refine=false"], "refine was given twice"),
])  # fmt: skip
def test_an_order_that_cannot_be_carried_out_is_one_sentence(
    tmp_path, monkeypatch, capsys, words, said
):
    monkeypatch.chdir(tmp_path)
    for name, text in {"empty": "", "half": "fixed,moving\na,b\na,\n", "heads": "a,b\n1,2\n",
                       "wide": "fixed,moving\na.png,b.png,c.png\n",
                       "good": "fixed,moving\na.png,b.png\n"}.items():  # fmt: skip
        Path(f"{name}.csv").write_text(text)
    assert main(["batch", *words, "-o", "out"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_images_that_are_missing_are_told_in_their_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("good.csv").write_text("fixed,moving\na.png,b.png\n")
    assert main(["batch", "good.csv", "-o", "out"]) == 3
    assert rows(tmp_path / "out")["a-b"]["reason"].startswith("There is no file 'a.png'")
    assert json.loads(Path("out/a-b/error.json").read_text())["verdict"] == "error"


def test_the_page_shows_names_and_reasons_as_text(tmp_path):
    row = {"name": "<b>&", "fixed": "<i>", "moving": "m", "verdict": "check", "notes": "",
           "reason": "<script>", "rotation_deg": 1.0, "scale": 1.0, "unit": "px", "agreement": 0.3,
           **{f"shift_{axis}": 0.0 for axis in "xyz"}}  # fmt: skip
    write_page(tmp_path, [row], 2)
    page = (tmp_path / "index.html").read_text()
    assert "<b>&:" not in page
    assert "&lt;script&gt;" in page
    assert "1 of 2 pairs" in page


def test_the_worst_come_first():
    given = [("accept", 0.9), ("fail", 0.2), ("accept", 0.5), ("error", None), ("check", 0.3)]
    ordered = worst_first([{"verdict": v, "agreement": a} for v, a in given])
    assert [(row["verdict"], row["agreement"]) for row in ordered] == [
        ("error", None), ("fail", 0.2), ("check", 0.3), ("accept", 0.5), ("accept", 0.9)
    ]  # fmt: skip


def test_a_table_may_name_masks_and_an_initial_map(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text(
        "fixed,moving,fixed_mask,moving_mask,initial\n"
        "a.png,b.png,m.png,,geometry\nc.png,d.png,,n.png,old/transform.h5\ne.png,f.png,,,\n"
    )
    first, second, third = pairs_in_table(table)
    assert first.masks == {"fixed": tmp_path / "m.png"}
    assert second.masks == {"moving": tmp_path / "n.png"}
    assert (first.initial, second.initial) == ("geometry", tmp_path / "old/transform.h5")
    assert (third.masks, third.initial) == ({}, None)


def test_masks_and_initial_maps_are_used_and_known_again(eyes, tmp_path, capsys):
    mask = np.zeros((1, 1, 320, 320), np.uint8)
    mask[..., :200] = 255
    write_image(tmp_path / "mask.png", Image(mask, Grid.of_picture(320, 320)))
    turned = np.eye(4)
    turned[:2, :2] = [[-1, 0], [0, -1]]
    write_transform(tmp_path / "turned.h5", Affine(turned), Grid.of_picture(320, 320))
    pair = f"{eyes}/2_A.png,{eyes}/2_B.png"
    table = tmp_path / "pairs.csv"
    table.write_text(
        "name,fixed,moving,fixed_mask,moving_mask,initial\n"
        f"plain,{pair},,,\nmasked,{pair},mask.png,,\nturned,{pair},,,turned.h5\n"
        f"missing,{pair},,nothing.png,\nblack,{pair},{eyes}/blank_B.png,,\n"
    )
    words = ["batch", str(table), "-o", str(tmp_path / "out")]
    assert main(words) == 3
    found = rows(tmp_path / "out")
    said = json.loads((tmp_path / "out/masked/result.json").read_text("utf-8"))
    assert said["counted"]["fixed"] == pytest.approx(200 / 320)
    assert found["masked"]["verdict"] == found["plain"]["verdict"] == "accept"
    assert float(found["masked"]["overlap"]) != float(found["plain"]["overlap"])
    assert found["turned"]["verdict"] != "accept"
    assert "no file 'nothing.png'" in found["missing"]["reason"]
    assert "leaves nothing" in found["black"]["reason"]
    capsys.readouterr()
    assert main(words) == 3
    assert "5 of 5 pairs had been done before." in capsys.readouterr().out
    mask[..., 150:] = 0
    write_image(tmp_path / "mask.png", Image(mask, Grid.of_picture(320, 320)))
    assert main([*words, "--quiet"]) == 3
    said = json.loads((tmp_path / "out/masked/result.json").read_text("utf-8"))
    assert said["counted"]["fixed"] == pytest.approx(150 / 320)
