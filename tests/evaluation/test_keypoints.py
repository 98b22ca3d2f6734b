"""The keypoint benchmark, with a stand-in for the network whose errors are known."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image as Picture

from retreg.errors import RegistrationError
from retreg.files import write_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import ModelInfo
from retreg.transforms import Affine
from retreg_server.cli import main
from retreg_server.evaluation import keypoints
from retreg_server.evaluation.cases import Case, Pair
from retreg_server.evaluation.keypoint_report import medians, write_keypoint_report
from retreg_server.evaluation.keypoints import Measured, keypoint_numbers
from retreg_server.evaluation.line_plot import line_plot
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.keymorph.model import KeyMorph
from retreg_server.registration.keymorph.similarity import mutual_information
from retreg_server.registration.keymorph.view_matching import Match

COUNT = 40


def a_model(kind="volume") -> KeyMorph:
    return KeyMorph(ModelInfo("keymorph-brain", "", (kind,), ("affine",)), None, mutual_information)


def points_in(image: Image) -> np.ndarray:
    random = np.random.default_rng(0)
    return image.grid.world(random.uniform(0.2, 0.8, (COUNT, 3)) * image.grid.size)


@pytest.fixture
def off_by(monkeypatch):
    """Keypoints of a changed image that miss by that many mm of the unchanged one."""
    truths = []
    change = keypoints._changed

    def remembered(*arguments):
        changed, back = change(*arguments)
        truths.append(back)
        return changed, back

    def install(error_mm):
        def matched(_model, fixed, _moving):
            found = points_in(fixed)
            missed = truths[-1].inverse(found + [error_mm, 0, 0])
            return Match(found, missed, np.ones(COUNT), 1.0, 0.0)

        monkeypatch.setattr(keypoints, "_changed", remembered)
        monkeypatch.setattr(keypoints, "_matched", matched)

    return install


def test_equivariance_is_measured_in_mm_of_the_original(off_by):
    head = make_head_pair(2, spacing_mm=6.0).fixed
    off_by(2.5)
    numbers = list(keypoints._equivariance(a_model(), "head", lambda: head))
    assert {n.figure for n in numbers} == {"equivariance-rotation", "equivariance-scale"}
    angles = {n.x for n in numbers if n.figure.endswith("rotation")}
    assert angles == {"0", "45", "90", "135", "180"}
    np.testing.assert_allclose([n.value for n in numbers], 2.5, atol=1e-6)


def test_a_turned_and_scaled_image_shows_the_same_where_the_truth_says():
    head = make_head_pair(2, spacing_mm=4.0).fixed
    changed, back = keypoints._changed(head, "head", 135, 1.25)
    places = points_in(head)
    there = np.rint(changed.grid.index(back.inverse(places))).astype(int)
    inside = ((there >= 0) & (there < changed.grid.size)).all(axis=1)
    here = np.rint(head.grid.index(places)).astype(int)
    seen = changed.array[0][tuple(there[inside, ::-1].T)]
    expected = head.array[0][tuple(here[inside, ::-1].T)]
    assert np.corrcoef(seen, expected)[0, 1] > 0.7


def a_case(angle=100.0) -> tuple[Case, Affine]:
    pair = make_head_pair(4, spacing_mm=6.0, rotation_deg=angle)
    shown = Pair(pair.fixed, pair.moving, pair.landmarks, pair.truth(pair.landmarks))
    return Case("contrast", "T1-T2 100°", lambda: shown, angle_deg=angle), pair.truth


def test_one_pair_gives_errors_by_angle_pair_smoothing_and_count(monkeypatch):
    case, truth = a_case()
    random = np.random.default_rng(1)

    def matched(_model, fixed, _moving):
        found = points_in(fixed)
        return Match(found, truth(found) + random.normal(0, 2, found.shape), np.ones(COUNT), 1, 0)

    monkeypatch.setattr(keypoints, "_matched", matched)
    numbers = list(keypoints._registration(a_model(), case))
    assert {n.figure for n in numbers} == {
        "error-by-angle", "error-by-pair", "error-by-smoothing", "error-by-count",
    }  # fmt: skip
    assert {n.x for n in numbers if n.figure == "error-by-angle"} == {"90-135°"}
    assert {n.series for n in numbers if n.figure == "error-by-pair"} == {"T1-T2"}
    assert {n.x for n in numbers if n.figure == "error-by-count"} == {"16", "32"}
    by_family = {n.series: n.value for n in numbers if n.figure == "error-by-angle"}
    assert by_family["affine"] < 2.5
    assert by_family["tps inf"] == pytest.approx(by_family["affine"])
    assert by_family["tps 0"] > by_family["tps 10"]


def test_a_pair_that_cannot_be_registered_is_counted(tmp_path, monkeypatch):
    for name in ("T1", "T2"):
        (tmp_path / "brain" / "openms_mni").mkdir(parents=True, exist_ok=True)
        grid = Grid((20, 20, 20), np.diag([9.0, 9, 9, 1]))
        noise = np.random.default_rng(3).uniform(size=(1, 20, 20, 20)).astype(np.float32)
        write_image(tmp_path / "brain" / "openms_mni" / f"patient07_{name}.nii.gz",
                    Image(noise, grid))

    def fails(*_):
        raise RegistrationError("No.")

    monkeypatch.setattr(keypoints, "_matched", fails)
    ticks = []
    numbers = list(keypoint_numbers(a_model(), tmp_path, 2, lambda: ticks.append(1)))
    assert {n.figure for n in numbers} == {"failures"}
    assert len(numbers) == len(ticks) == 5  # two images, two pairs, the people


@pytest.mark.parametrize(
    ("angle", "words"),
    [(0, "0-45°"), (45, "45-90°"), (180, "135-180°"), (300, "45-90°"), (np.nan, "as is")],
)
def test_angles_fall_into_the_bins_of_the_paper(angle, words):
    assert keypoints._bin(angle) == words


def test_medians_are_taken_over_names_and_places_are_in_order():
    values = [("10", 1.0), ("10", 3.0), ("2", 5.0), ("inf", 7.0), ("10", 100.0)]
    numbers = [Measured("f", "s", x, v, str(n)) for n, (x, v) in enumerate(values)]
    assert medians(numbers) == (["2", "10", "inf"], {"s": {"2": 5.0, "10": 3.0, "inf": 7.0}})


def test_the_report_holds_every_number_a_table_and_a_plot(tmp_path):
    numbers = [
        Measured("equivariance-rotation", "median", "0", 1.0, "a"),
        Measured("equivariance-rotation", "median", "90", 2.25, "a"),
        Measured("overlap-by-angle", "affine", "0-45°", 0.5, "b"),
    ]
    write_keypoint_report(tmp_path, "keymorph-brain", "mm", numbers)
    with (tmp_path / "numbers.csv").open(encoding="utf-8") as stream:
        assert [float(row["value"]) for row in csv.DictReader(stream)] == [1.0, 2.25, 0.5]
    text = (tmp_path / "keypoints.md").read_text(encoding="utf-8")
    assert "| median | 1 | 2.25 |" in text
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for figure in ("equivariance-rotation", "overlap-by-angle"):
        assert f"{figure}.png" in page
        assert (tmp_path / f"{figure}.png").exists()


def test_a_plot_draws_higher_values_higher(tmp_path):
    line_plot(tmp_path / "p.png", "Error", ["a", "b"], {"s": {"a": 1.0, "b": 8.0}}, "mm")
    pixels = np.asarray(Picture.open(tmp_path / "p.png").convert("RGB")).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - [27, 108, 168]).sum(axis=2) < 10)
    inside = columns < 520
    assert rows[inside][columns[inside].argmin()] > rows[inside][columns[inside].argmax()] + 100


def test_models_without_keypoints_are_refused(tmp_path, capsys):
    arguments = ["evaluate", "keypoints", "--data", str(tmp_path), "--model", "auto-brain"]
    assert main(arguments) == 2
    assert "no network for keypoints" in capsys.readouterr().err
