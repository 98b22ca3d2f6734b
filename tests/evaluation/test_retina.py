"""The retina benchmark on made-up folders, and on the real one where it is there."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from retreg.errors import FileError
from retreg_server.evaluation.known_truth import foreground
from retreg_server.evaluation.retina import retina_cases


def a_picture(path, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    PIL.Image.fromarray(random.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def a_folder(tmp_path):
    """Two pairs of one eye and one of another, FIRE's own layout, and no vessels."""
    multimodal = tmp_path / "retina" / "multimodal_landmark_pairs"
    multimodal.mkdir(parents=True)
    for name in ("032", "034", "101"):
        a_picture(multimodal / f"{name}_fixed.png")
        a_picture(multimodal / f"{name}_moving.png")
        (multimodal / f"{name}_landmarks.csv").write_text(
            "fixed_x,fixed_y,moving_x,moving_y,resid_px\n1,2,3,4,0.5\n5.5,6,7,8,0.1\n9,9,8,8,1\n"
        )
    fire = tmp_path / "retina" / "fire"
    (fire / "Images").mkdir(parents=True)
    (fire / "Ground Truth").mkdir()
    a_picture(fire / "Images" / "P01_1.jpg", 1)
    a_picture(fire / "Images" / "P01_2.jpg", 2)
    (fire / "Ground Truth" / "control_points_P01_1_2.txt").write_text("1 2 3 4\n5 6 7 8\n")
    return tmp_path


def cases_of(folder, name):
    return [case for case in retina_cases(folder) if case.benchmark_set == name]


def test_landmarks_are_points_of_the_plane(a_folder):
    pair = cases_of(a_folder, "multimodal")[0].load()
    assert pair.fixed_points.tolist() == [[1, 2, 0], [5.5, 6, 0], [9, 9, 0]]
    assert pair.original_points.tolist() == [[3, 4, 0], [7, 8, 0], [8, 8, 0]]
    assert pair.error_unit_mm == pytest.approx(0.06)


def test_fire_maps_the_second_picture_to_the_first(a_folder):
    (case,) = cases_of(a_folder, "fire")
    pair = case.load()
    assert case.category == "P"
    assert pair.fixed_points.tolist() == [[3, 4, 0], [7, 8, 0]]
    assert pair.original_points.tolist() == [[1, 2, 0], [5, 6, 0]]


def test_pictures_of_the_same_eye_are_never_a_wrong_pair(a_folder):
    names = {case.name for case in cases_of(a_folder, "different-eyes")}
    assert names == {"032-101", "034-101", "101-032", "101-034"}
    assert not any(case.right for case in cases_of(a_folder, "different-eyes"))


def test_turned_pairs_are_turned_and_scaled_within_the_stated_range(a_folder):
    for case in cases_of(a_folder, "multimodal-turned"):
        matrix = case.load().original_from_moving.inverse.moving_from_fixed
        scale = np.sqrt(np.linalg.det(matrix[:2, :2]))
        assert 0.75 <= scale <= 1.3
        assert 30 <= case.angle_deg <= 330


def test_pairs_against_nothing_come_in_both_roles(a_folder):
    cases = {case.name: case for case in cases_of(a_folder, "no-picture")}
    assert cases["101-black"].load().moving.array.max() == 0
    assert cases["black-101"].load().fixed.array.max() == 0
    noise = cases["101-noise"].load().moving.array
    assert noise.std() > 50


def test_a_folder_without_the_data_is_one_sentence(tmp_path):
    with pytest.raises(FileError, match="holds no data of this benchmark; give the folder"):
        retina_cases(tmp_path)


def test_damaged_landmarks_are_one_sentence(a_folder):
    (a_folder / "retina/multimodal_landmark_pairs/101_landmarks.csv").write_text("1,2\n3,4\n")
    with pytest.raises(FileError, match=r"101_landmarks\.csv"):
        cases_of(a_folder, "multimodal")[2].load()


def test_the_real_data_has_all_sets(retreg_data):
    cases = retina_cases(retreg_data)
    sizes = {
        name: sum(case.benchmark_set == name for case in cases)
        for name in dict.fromkeys(case.benchmark_set for case in cases)
    }
    assert sizes == {
        "multimodal": 11,
        "multimodal-turned": 11,
        "same-eye": 22,
        "fire": 1,
        "warped": 8,
        "different-eyes": 200,
        "no-picture": 48,
    }
    assert len({(case.benchmark_set, case.name) for case in cases}) == len(cases)


def test_warped_pictures_hold_their_truth_inside_both_fields_of_view(retreg_data):
    case = next(c for c in retina_cases(retreg_data) if c.benchmark_set == "warped")
    pair = case.load()
    assert len(pair.fixed_points) > 1000
    index = np.rint(pair.original_points[:, :2]).astype(int)
    assert foreground(pair.moving)[0][index[:, 1], index[:, 0]].mean() > 0.95
