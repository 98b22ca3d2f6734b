"""Maps as files and as pictures with a colour bar."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image as Picture

from retreg.files import read_image, write_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.cli import main
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair
from retreg_server.registration.registry import offered_models
from retreg_server.reporting.map_figures import FOLD, GAP, TITLE, map_picture, world_unit
from retreg_server.reporting.result_folder import write_outputs


def a_map(values: np.ndarray) -> Image:
    return Image(values[None, None].astype(np.float32), Grid.of_picture(*values.shape[::-1]))


def panel(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return picture[TITLE : TITLE + shape[0], GAP : GAP + shape[1]].astype(int)


def test_the_bar_runs_from_the_colour_of_the_smallest_number_to_that_of_the_largest():
    ramp = np.linspace(0, 4, 200)[None].repeat(150, axis=0)
    picture = map_picture("error", a_map(ramp), "mm")
    shown = panel(picture, ramp.shape)
    bar = picture[TITLE : TITLE + 150, GAP + 200 + GAP + 5].astype(int)
    assert np.abs(bar[-1] - shown[0, 0]).max() <= 3
    assert np.abs(bar[0] - shown[0, -1]).max() <= 3
    assert (np.diff(shown.sum(axis=2).mean(axis=0)[::20]) > 0).all()


def test_a_determinant_of_one_is_white_growth_red_shrinkage_blue_folds_magenta():
    values = np.ones((60, 80))
    values[:20], values[40:] = 1.4, 0.6
    values[:, :8] = -0.5
    shown = panel(map_picture("jacobian", a_map(values), ""), values.shape)
    assert shown[30, 40].min() > 250
    assert shown[10, 40, 0] > shown[10, 40, 2] + 50
    assert shown[50, 40, 2] > shown[50, 40, 0] + 50
    np.testing.assert_array_equal(shown[30, 3], FOLD)


def test_an_infinite_coefficient_is_drawn_as_a_fold():
    values = np.full((40, 50), 0.1)
    values[20, 25] = np.inf
    shown = panel(map_picture("beltrami", a_map(values), ""), values.shape)
    np.testing.assert_array_equal(shown[20, 25], FOLD)
    assert (shown != FOLD).any(axis=2).sum() == 40 * 50 - 1


def test_a_map_is_drawn_over_the_picture_and_only_inside_its_field_of_view():
    j, i = np.indices((200, 240))
    inside = (j - 100) ** 2 + (i - 120) ** 2 < 80**2
    vessel = inside & (np.abs(i - 120) < 4)
    grey = np.where(vessel, 60, np.where(inside, 180, 0)).astype(np.uint8)
    fixed = Image(grey[None, None], Grid.of_picture(240, 200))
    shown = panel(map_picture("error", a_map(np.full((200, 240), 3.0)), "px", fixed), inside.shape)
    np.testing.assert_array_equal(shown[5, 5], 0)  # the picture, not the colour of a number
    assert np.ptp(shown[100, 60]) > 40  # coloured
    assert shown[100, 60].sum() > 1.3 * shown[100, 120].sum()  # the vessel is seen through it


def test_the_ends_of_the_bar_come_from_inside_the_object():
    grey = np.zeros((200, 200), np.uint8)
    grey[40:160, 40:160] = np.random.default_rng(0).integers(100, 200, (120, 120))
    fixed = Image(grey[None, None], Grid.of_picture(200, 200))
    inside = np.full((200, 200), 2.0)
    inside[:20] = 500.0  # far outside of what the picture shows
    with_outside = map_picture("error", a_map(inside), "px", fixed)
    alone = map_picture("error", a_map(np.full((200, 200), 2.0)), "px", fixed)
    np.testing.assert_array_equal(with_outside[100:], alone[100:])


def test_a_fold_is_magenta_over_the_picture_too():
    values = np.ones((100, 120))
    values[40:60, 50:70] = -1
    fixed = Image(np.full((1, 1, 100, 120), 30, np.uint8), Grid.of_picture(120, 100))
    shown = panel(map_picture("jacobian", a_map(values), "", fixed), values.shape)
    np.testing.assert_array_equal(shown[50, 60], FOLD)


def test_a_volume_is_shown_in_three_planes():
    grid = Grid((20, 24, 28), np.diag([2.0, 2, 2, 1]))
    picture = map_picture("displacement", Image(np.ones((1, *grid.shape), np.float32), grid), "mm")
    assert picture.shape[1] > 2 * picture.shape[0]


def test_a_picture_without_a_scale_counts_in_pixels():
    assert world_unit(Grid.of_picture(3, 4)) == "px"
    assert world_unit(Grid((3, 4, 1), np.diag([0.1, 0.1, 1, 1]))) == "mm"


def a_result(backward: Affine | None) -> RegistrationResult:
    matrix = np.diag([1.1, 1.0, 1.0, 1.0])
    none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
    return RegistrationResult(Affine(matrix), none, none, Quality({}, "check", "So."), {}, backward)


def test_maps_of_a_volume_are_images_that_simpleitk_places_on_the_fixed_one(tmp_path):
    grid = Grid((12, 10, 8), np.diag([1.0, 2.0, 3.0, 1.0]))
    image = Image(np.random.default_rng(0).normal(size=(1, *grid.shape)).astype(np.float32), grid)
    write_outputs(tmp_path, image, image, a_result(Affine.identity()), maps=True)
    found = sitk.ReadImage(str(tmp_path / "map_error.nrrd"))
    assert found.GetSpacing() == (1, 2, 3)
    expected = 0.1 * np.arange(12)
    np.testing.assert_allclose(sitk.GetArrayFromImage(found)[4, 5], expected, atol=1e-5)
    jacobian = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "map_jacobian.nrrd")))
    np.testing.assert_allclose(jacobian, 1.1, atol=1e-5)
    lines = json.loads((tmp_path / "result.json").read_text())["maps"]
    assert set(lines) == {"error", "displacement", "jacobian"}
    assert lines["error"] == pytest.approx(
        {"unit": "mm", "smallest": 0, "median": 0.55, "p95": 1.1, "largest": 1.1}, abs=1e-4
    )
    assert not (tmp_path / "map_beltrami.nrrd").exists()


def test_without_a_transform_back_there_is_no_map_of_the_error(tmp_path):
    image = Image(np.arange(3000, dtype=np.uint8).reshape(1, 1, 50, 60), Grid.of_picture(60, 50))
    write_outputs(tmp_path, image, image, a_result(None), maps=True)
    assert {path.name for path in tmp_path.glob("map_*")} == {
        f"map_{name}.{suffix}"
        for name in ("displacement", "jacobian", "beltrami")
        for suffix in ("nrrd", "png")
    }


def test_the_command_line_writes_maps_when_asked(tmp_path):
    pair = make_fundus_pair(11, size=400, rotation_deg=30, elastic_px=3)
    write_image(tmp_path / "a.png", pair.fixed)
    write_image(tmp_path / "b.png", pair.moving)
    arguments = ["register", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--maps"]
    assert main([*arguments, "--transform", "deformable", "-o", str(tmp_path / "out")]) == 0
    lines = json.loads((tmp_path / "out" / "result.json").read_text())["maps"]
    assert lines["error"]["unit"] == "px"
    assert 0 < lines["error"]["median"] < 1
    assert lines["jacobian"]["smallest"] > 0
    assert 0 < lines["beltrami"]["largest"] < 1
    picture = Picture.open(tmp_path / "out" / "map_error.png")
    assert picture.size[1] > 400


@pytest.mark.skipif("segreg-fundus" not in offered_models(), reason="needs its weights")
def test_the_vessels_are_a_label_map_on_the_fixed_picture(tmp_path):
    pair = make_fundus_pair(11, size=400, rotation_deg=30, elastic_px=0)
    write_image(tmp_path / "a.png", pair.fixed)
    write_image(tmp_path / "b.png", pair.moving)
    arguments = ["register", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--maps", "vessels"]
    assert main([*arguments, "--transform", "affine", "-o", str(tmp_path / "out")]) == 0
    labels = read_image(tmp_path / "out" / "map_vessels.nrrd")
    assert labels.grid.size == pair.fixed.grid.size
    assert set(np.unique(labels.array)) == {0, 1}
    green, vessels = pair.fixed.array[1, 0].astype(float), labels.array[0, 0] > 0
    around = cv2.dilate(vessels.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    assert green[vessels].mean() < green[around & ~vessels].mean() - 5
    assert (tmp_path / "out" / "map_vessels.png").exists()
    assert (tmp_path / "out" / "map_error.nrrd").exists()


def test_a_volume_has_no_map_of_vessels(tmp_path, capsys):
    pair = make_head_pair(3, spacing_mm=8.0)
    write_image(tmp_path / "a.nrrd", pair.fixed)
    file = str(tmp_path / "a.nrrd")
    assert main(["register", file, file, "--maps", "vessels", "-o", str(tmp_path / "out")]) == 2
    assert "Only pictures of the retina have a map of vessels" in capsys.readouterr().err
