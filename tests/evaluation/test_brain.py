"""The brain benchmark on a made-up folder, and on the real one where it is there."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import FileError
from retreg.resample import resample
from retreg_server.evaluation.bench import run_cases
from retreg_server.evaluation.brain import brain_cases
from retreg_server.evaluation.peers import Answer, method_by_name


def write(path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = sitk.GetImageFromArray(array)
    volume.SetOrigin((-10.0, 5.0, 7.0))
    sitk.WriteImage(volume, str(path))


@pytest.fixture
def a_folder(tmp_path):
    """Two contrasts of a ball, two labelled people (one scanned twice), and two visits."""
    k, j, i = np.indices((24, 26, 28))
    ball = ((k - 12) ** 2 + (j - 13) ** 2 + (i - 14) ** 2 < 81).astype(np.int16)
    brain = tmp_path / "brain"
    for name in ("T1", "T2"):
        write(brain / "openms_mni" / f"patient07_{name}.nii.gz", ball * (100 + 5 * i))
    write(brain / "openms_mni" / "patient07_lesions.nii.gz", ball)
    for person in ("1003", "1023", "1000"):
        write(brain / "malf_oasis" / f"{person}_SS.nii.gz", ball * 300)
        write(brain / "malf_oasis" / f"{person}_glm.nii.gz", ball * (1 + (i > 14)))
    visits = brain / "openms_longitudinal_raw"
    for visit, shift in ((1, (1.0, 0.0, 0.0)), (2, (0.0, 0.0, 5.0))):
        write(visits / f"p01_study{visit}_FLAIR.nii.gz", ball * 200)
        transform = sitk.AffineTransform(3)
        transform.SetTranslation(shift)
        name = f"p01_study{visit}_FLAIR_to_common_space.txt"
        sitk.WriteTransform(transform, str(visits / name))
    return tmp_path


def cases_of(folder, name):
    return [case for case in brain_cases(folder) if case.benchmark_set == name]


def truth_of(pair):
    """The transform that a perfect method would return for volumes of one world."""
    return lambda _fixed, _moving: Answer(pair.original_from_moving.inverse)


def test_the_known_transform_has_no_error_and_the_images_agree_under_it(a_folder):
    case = cases_of(a_folder, "contrast")[2]
    pair = case.load()
    (finished,) = run_cases([case], {"truth": truth_of(pair)})
    assert finished.row.error == pytest.approx(0, abs=1e-9)
    assert finished.row.initial_error > 3
    truth = pair.original_from_moving.inverse
    back = resample(pair.moving, truth, pair.fixed.grid).grey()
    assert np.corrcoef(back.ravel(), pair.fixed.grey().ravel())[0, 1] > 0.95


def test_contrast_pairs_come_in_both_orders_and_all_ranges_of_angles(a_folder):
    cases = cases_of(a_folder, "contrast")
    assert len(cases) == 8
    assert sorted(int(case.angle_deg // 45) for case in cases) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_label_maps_are_not_registered_as_brains(a_folder):
    names = {case.name.split()[0] for case in cases_of(a_folder, "same-brain")}
    assert "patient07_lesions" not in names
    assert "1000_glm" not in names
    assert {"patient07_T1", "1000_SS", "p01_study1_FLAIR"} <= names


def test_people_are_compared_with_others_only_and_the_truth_gives_full_overlap(a_folder):
    cases = cases_of(a_folder, "subjects")
    assert {case.name.split()[0] for case in cases} == {
        "1000-1003", "1000-1023", "1003-1000", "1023-1000",
    }
    (finished,) = run_cases(cases[:1], {"truth": truth_of(cases[0].load())})
    assert finished.row.dice == pytest.approx(1.0)
    assert finished.row.initial_dice < 0.9


def test_two_visits_are_related_through_the_common_space(a_folder):
    pair = cases_of(a_folder, "clinical")[0].load()
    # study 1 = common + (1, 0, 0) and study 2 = common + (0, 0, 5)
    assert pair.original_points - pair.fixed_points == pytest.approx(
        np.tile([-1.0, 0, 5], (len(pair.fixed_points), 1))
    )


def test_a_damaged_reference_transform_is_one_sentence(a_folder):
    name = "p01_study2_FLAIR_to_common_space.txt"
    (a_folder / "brain" / "openms_longitudinal_raw" / name).write_text("nothing")
    with pytest.raises(FileError, match="reference transform p01_study2"):
        cases_of(a_folder, "clinical")[0].load()


def test_a_folder_without_the_data_is_one_sentence(tmp_path):
    with pytest.raises(FileError, match="holds no data of this benchmark; give the folder"):
        brain_cases(tmp_path)


def test_the_real_data_has_all_sets_and_distinct_names(retreg_data):
    cases = brain_cases(retreg_data)
    sizes = {
        name: sum(case.benchmark_set == name for case in cases)
        for name in dict.fromkeys(case.benchmark_set for case in cases)
    }
    assert sizes == {
        "contrast": 40,
        "same-brain": 56,
        "head-and-brain": 24,
        "clinical": 15,
        "subjects": 28,
        "no-brain": 18,
    }
    assert len({(case.benchmark_set, case.name) for case in cases}) == len(cases)


def test_two_real_visits_lie_apart_by_their_headers_and_the_reference_moves_them(retreg_data):
    name = "p01_study1_FLAIR-p01_study2_FLAIR as is"
    case = next(case for case in brain_cases(retreg_data) if case.name == name)
    (finished,) = run_cases([case], {"identity": method_by_name("identity")})
    assert 1.0 < finished.row.error < 60.0
