"""The benchmark of volumes of any kind, on a made-up folder."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import FileError
from retreg.quality import normalised_mutual_information
from retreg.resample import resample
from retreg.transforms import Affine
from retreg_server.evaluation.volumes import volume_cases


@pytest.fixture(scope="module")
def a_folder(tmp_path_factory):
    """A knee, and two scans of one infant's head: ellipsoids with a dark core."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "other" / "mri").mkdir(parents=True)
    k, j, i = np.indices((30, 34, 38))
    far = ((k - 15) / 12) ** 2 + ((j - 17) / 14) ** 2 + ((i - 19) / 16) ** 2
    values = np.where(far < 1, 400 + 10 * i, 0) - 300 * (far < 0.2)
    for name in ("knee", "infant_month6_t1", "infant_month6_t2"):
        volume = sitk.GetImageFromArray(values.astype(np.int16))
        volume.SetSpacing((1.0, 1.5, 2.0))
        sitk.WriteImage(volume, str(folder / "other" / "mri" / f"{name}.nii.gz"))
    return folder


def cases_of(folder, name):
    return [case for case in volume_cases(folder) if case.benchmark_set == name]


def alike(pair, transform) -> float:
    """How much the grey values of the fixed volume say of those of the moving one."""
    back = resample(pair.moving, transform, pair.fixed.grid, fill=np.nan).grey()
    shown = np.isfinite(back)
    assert shown.sum() > 300
    return normalised_mutual_information(pair.fixed.grey()[shown], back[shown])


@pytest.mark.parametrize("benchmark_set", ["copies", "parts"])
def test_the_known_transform_lays_a_copy_or_a_part_onto_the_original(a_folder, benchmark_set):
    for case in cases_of(a_folder, benchmark_set)[:6]:
        pair = case.load()
        truth = pair.original_from_moving.inverse
        off = Affine(truth.moving_from_fixed @ moved_by(6.0))
        assert alike(pair, truth) > alike(pair, off) + 0.01
        points = pair.original_from_moving(truth(pair.fixed_points))
        np.testing.assert_allclose(points, pair.original_points, atol=1e-9)


def moved_by(distance_mm: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = distance_mm / np.sqrt(3)
    return matrix


def test_a_part_has_the_share_of_the_volume_that_was_asked_for(a_folder):
    for case in cases_of(a_folder, "parts"):
        pair = case.load()
        shown = np.ptp(pair.fixed_points, axis=0)
        assert (shown < [33, 43, 50]).all()
        assert 0.1 < np.prod(shown) / np.prod([32, 42, 48]) < 0.75


def test_volumes_of_one_kind_are_no_wrong_pair(a_folder):
    names = {case.name for case in cases_of(a_folder, "wrong")}
    assert {name for name in names if " " not in name} == {
        "knee-infant_month6_t1", "knee-infant_month6_t2",
        "infant_month6_t1-knee", "infant_month6_t2-knee",
    }  # fmt: skip
    assert not any(case.right for case in cases_of(a_folder, "wrong"))


def test_two_ends_of_one_thing_share_nothing(a_folder):
    (case,) = (case for case in cases_of(a_folder, "wrong") if case.name == "knee i ends")
    pair = case.load()
    assert pair.fixed.grid.size == (14, 34, 30)
    whole = cases_of(a_folder, "copies")[0].load().fixed
    first = [n for n in range(9) if (pair.fixed.array == whole.array[..., n : n + 14]).all()]
    assert len(first) == 1
    corner = whole.grid.world(np.array([[first[0], 0, 0]]))[0]
    np.testing.assert_allclose(pair.fixed.grid.world_from_index[:3, 3], corner)


def test_a_folder_without_volumes_is_refused(tmp_path):
    with pytest.raises(FileError, match="other/mri"):
        volume_cases(tmp_path)
