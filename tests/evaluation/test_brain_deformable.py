"""The deformable brain benchmark on a made-up folder, and on the real one where it is there."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.geometry import Grid
from retreg.quality import jacobian_determinants
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField
from retreg_server.evaluation.bench import Row, run_cases
from retreg_server.evaluation.brain_deformable import WARP_MM, deformable_cases, volume_warp
from retreg_server.evaluation.metrics import folding
from retreg_server.evaluation.peers import Answer, method_by_name
from retreg_server.evaluation.summaries import brain_errors, overlaps


@pytest.fixture
def a_folder(tmp_path):
    """Two contrasts of a ball, and two labelled people, one of them scanned twice."""
    k, j, i = np.indices((40, 42, 44))
    ball = ((k - 20) ** 2 + (j - 21) ** 2 + (i - 22) ** 2 < 225).astype(np.int16)
    names = {
        "openms_mni/patient07_T1": ball * (100 + 5 * i),
        "openms_mni/patient07_T2": ball * (400 - 5 * i),
    }
    for person in ("1003", "1023", "1000"):
        names[f"malf_oasis/{person}_SS"] = ball * 300
        names[f"malf_oasis/{person}_glm"] = ball * (1 + (i > 22))
    for name, array in names.items():
        path = tmp_path / "brain" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing((4.0, 4.0, 4.0))
        sitk.WriteImage(volume, str(path))
    return tmp_path


def test_people_are_paired_with_others_and_contrasts_both_ways(a_folder):
    names = [(case.benchmark_set, case.name) for case in deformable_cases(a_folder)]
    assert names == [
        ("people", "1000-1003"), ("people", "1000-1023"),
        ("people", "1003-1000"), ("people", "1023-1000"),
        ("warped", "patient07_T1-patient07_T2"), ("warped", "patient07_T2-patient07_T1"),
    ]


def test_the_warped_volume_meets_its_own_contrast_under_the_truth(a_folder):
    case = next(case for case in deformable_cases(a_folder) if case.benchmark_set == "warped")
    pair = case.load()
    original = resample(pair.moving, _inverse(pair), pair.fixed.grid).grey()
    inside = pair.fixed.grey() > 0
    expected = 500 - pair.fixed.grey()  # the two contrasts are mirrored
    assert np.median(np.abs(original - expected)[inside]) < 10
    (finished,) = run_cases([case], {"truth": lambda _f, _m: Answer(_inverse(pair))})
    assert finished.row.error < 0.3
    assert finished.row.initial_error > 4
    assert finished.row.folding == 0


def _inverse(pair) -> DisplacementField:
    """The inverse of the warp by fixed-point iteration."""
    points = pair.fixed.grid.lattice()
    found = points.copy()
    for _ in range(40):
        found -= 0.7 * (pair.original_from_moving(found) - points)
    vectors = (found - points).T.reshape(3, *pair.fixed.grid.shape)
    return DisplacementField(vectors, pair.fixed.grid)


def test_warps_have_the_wanted_length_do_not_fold_and_differ_by_name():
    grid = Grid((90, 100, 90), np.diag([2.0, 2, 2, 1]))
    for seed in range(4):
        warp = volume_warp(np.random.default_rng(seed), grid, WARP_MM)
        lengths = np.linalg.norm(warp.vectors_mm, axis=0)
        assert np.sqrt((lengths**2).mean()) == pytest.approx(WARP_MM)
        assert folding(warp, grid) == 0
    other = volume_warp(np.random.default_rng(7), grid, WARP_MM)
    assert not np.array_equal(other.vectors_mm, warp.vectors_mm)


def test_folding_is_the_share_of_voxels_turned_inside_out():
    grid = Grid((20, 20, 20), np.diag([-2.0, 2, 2, 1]))  # left-handed
    mirror = np.diag([-1.0, 1, 1, 1])
    assert folding(Affine(mirror), grid) == 1
    assert folding(Chain((Affine(mirror), Affine(mirror))), grid) == 0

    def half(points: np.ndarray) -> np.ndarray:
        return np.column_stack([np.abs(points[:, 0] + 20), points[:, 1:]])

    points = grid.lattice()
    expected = (jacobian_determinants(half, points, np.eye(3), 2.0) <= 0).mean()
    assert folding(half, grid) == pytest.approx(expected)
    assert 0.4 < expected < 0.6


def test_the_worst_fold_is_reported_for_transforms_that_bend():
    rows = [
        Row(
            "warped", str(n), "m", True, "", 0.0,
            error=1.0, initial_error=2.0, dice=0.5, initial_dice=0.1, folding=f,
        )
        for n, f in enumerate((0.0, 0.001, float("nan")))
    ]
    for summary in (brain_errors, overlaps):
        assert summary(rows)["folded voxels, worst pair"] == "0.1000 %"
        assert "folded voxels, worst pair" not in summary(rows[2:])


def test_the_real_data_has_both_sets(retreg_data):
    cases = deformable_cases(retreg_data)
    assert sum(case.benchmark_set == "people" for case in cases) == 28
    warped = [case for case in cases if case.benchmark_set == "warped"]
    assert len(warped) == 6
    (finished,) = run_cases(warped[:1], {"identity": method_by_name("identity")})
    assert 4 < finished.row.error < 10
