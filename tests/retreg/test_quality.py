"""Quality numbers against values worked out by hand, and the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from retreg.quality import (
    inverse_consistency,
    jacobian_determinants,
    judge,
    normalised_mutual_information,
)
from retreg.transforms import Affine

POINTS = np.random.default_rng(2).uniform(-50, 50, (40, 3))
GOOD = {
    "agreement": 0.9,
    "blocks": 100.0,
    "overlap": 0.8,
    "inconsistency": 0.002,
    "inverse_consistency_p95_mm": 0.4,
    "folding": 0.0,
}


def shifted(x: float, y: float, z: float) -> Affine:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return Affine(matrix)


def test_inverse_consistency_is_the_distance_after_there_and_back():
    errors = inverse_consistency(shifted(10, 0, 0), shifted(-7, 4, 0), POINTS)
    np.testing.assert_allclose(errors, 5)


def test_the_jacobian_of_an_affine_is_its_determinant():
    linear = np.array([[1.2, 0.1, 0], [0, 0.9, 0.3], [0.2, 0, 1.1]])
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    found = jacobian_determinants(Affine(matrix), POINTS, np.eye(3), 0.5)
    np.testing.assert_allclose(found, np.linalg.det(linear))


def test_a_folding_volume_and_a_folding_plane_have_jacobians_below_zero():
    def fold(points: np.ndarray) -> np.ndarray:
        out = points.copy()
        out[:, 0] = np.where(points[:, 0] > 30, 60 - points[:, 0], points[:, 0])
        return out

    inner = POINTS[np.abs(POINTS[:, 0] - 30) > 1]
    for frame in (np.eye(3), np.eye(3)[:, :2]):
        found = jacobian_determinants(fold, inner, frame, 0.5)
        np.testing.assert_allclose(found, np.where(inner[:, 0] > 30, -1, 1))


def test_a_turned_plane_keeps_its_area():
    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    found = jacobian_determinants(Affine(matrix), POINTS * [1, 1, 0], np.eye(3)[:, :2], 0.5)
    np.testing.assert_allclose(found, 1)


def test_mutual_information_is_two_for_equal_and_one_for_unrelated_values():
    values = np.tile(np.arange(32.0), 400)
    other = np.repeat(np.arange(400) % 20.0, 32)
    assert normalised_mutual_information(values, 7 - 3 * values) == pytest.approx(2)
    assert normalised_mutual_information(values, other) == pytest.approx(1, abs=1e-6)


def test_mutual_information_of_a_known_joint_distribution():
    # Two fair bits that agree in 3 of 4 cases: H = ln 2 each, joint (3/8, 3/8, 1/8, 1/8).
    a = np.tile([0, 0, 0, 0, 1, 1, 1, 1.0], 500)
    b = np.tile([0, 0, 0, 1, 1, 1, 1, 0.0], 500)
    joint = -(2 * 3 / 8 * np.log(3 / 8) + 2 / 8 * np.log(1 / 8))
    expected = 2 * np.log(2) / joint
    assert normalised_mutual_information(a, b, bins=2) == pytest.approx(expected)


def test_too_few_values_have_no_mutual_information():
    assert np.isnan(normalised_mutual_information(np.arange(5.0), np.arange(5.0)))


def test_a_good_registration_is_accepted_in_a_sentence():
    verdict, reason = judge(GOOD)
    assert verdict == "accept"
    assert reason == (
        "Points taken to the moving image and back miss by 0.4 mm (usual for right results of this "
        "size: up to 0.6 mm), and 90% of the image finds its counterpart where it was put (usual: "
        "60% or more)."
    )


@pytest.mark.parametrize(
    ("miss", "share", "words"),
    [
        (0.38, 0.000106, "miss by 0.38 px (usual for right results of this size: up to 10 px)"),
        (5.6, 0.0088, "miss by 5.6 px (usual for right results of this size: up to 2 px)"),
        (250.0, 0.01, "miss by 250 px"),
        (0.0, 0.0, "miss by 0 px, and"),
    ],
)
def test_the_error_is_said_first_and_then_what_is_usual(miss, share, words):
    numbers = {**GOOD, "inverse_consistency_p95_mm": miss, "inconsistency": share}
    assert words in judge(numbers, "px")[1]


@pytest.mark.parametrize("name", ["agreement", "overlap", "inconsistency", "correlation"])
def test_a_bad_result_is_named_first_and_then_what_is_needed(name):
    bad = {"inconsistency": 0.5}.get(name, 0.01)
    reason = judge({**GOOD, name: bad})[1]
    assert reason.startswith("Probably wrong: ")
    assert "usual: " in reason or "needed" in reason


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"agreement": 0.3}, "check", "counterpart"),
        ({"agreement": 0.05}, "fail", "counterpart"),
        ({"agreement": np.nan}, "fail", "counterpart"),
        ({"inconsistency": 0.05}, "check", "other way"),
        ({"inconsistency": 0.4}, "fail", "other way"),
        ({"inconsistency": np.nan}, "fail", "other way"),
        ({"overlap": 0.15}, "check", "share only"),
        ({"overlap": 0.01}, "fail", "share only"),
        ({"blocks": 8}, "check", "too little structure"),
        ({"blocks": 0}, "fail", "too little structure"),
        ({"folding": 0.01}, "fail", "folds"),
        ({"folding": np.nan}, "fail", "does not overlap"),
        ({"overlap": 0.0}, "fail", "does not overlap"),
        ({"overlap": 0.0, "folding": 0.2}, "fail", "does not overlap"),
        ({"correlation": 0.15, "agreement": 0.45}, "check", "correlate"),
        ({"correlation": 0.3, "overlap": 0.3, "agreement": 0.65}, "check", "counterpart"),
        ({"correlation": 0.3, "overlap": 0.12}, "check", "share only"),
        ({"correlation": 0.0}, "fail", "correlate"),
        ({"correlation": 0.85, "agreement": 0.55}, "check", "strong edges"),
        ({"agreement_undeformed": 0.2}, "check", "before it was deformed"),
        ({"agreement_undeformed": 0.06}, "fail", "before it was deformed"),
        ({"agreement_undeformed": np.nan}, "fail", "before it was deformed"),
        ({"correlation": 0.3, "meeting_marks": 0.02, "agreement": 0.7}, "check", "annotation"),
        ({"correlation": 0.3, "meeting_marks": 0.02, "overlap": 0.3}, "check", "annotation"),
        ({"meeting_marks": 0.02, "agreement": 0.1}, "fail", "counterpart"),
        ({"slab_mm": 12.0, "agreement": 0.5}, "check", "only 12 mm thick"),
        ({"slab_mm": 12.0, "agreement": 0.1}, "fail", "only 12 mm thick"),
        ({"triangle": 0.05}, "check", "another image"),
    ],
)
def test_one_bad_number_is_enough(changes, verdict, words):
    found, reason = judge({**GOOD, **changes})
    assert found == verdict
    assert words in reason
    assert reason.endswith(".")


def test_a_slab_is_accepted_when_most_of_it_agrees():
    assert judge({**GOOD, "slab_mm": 12.0})[0] == "accept"


def test_marks_that_meet_do_not_matter_where_all_beside_them_agrees():
    marked = {**GOOD, "correlation": 0.3, "meeting_marks": 0.02}
    assert judge({**marked, "agreement": 0.8})[0] == "accept"


@pytest.mark.parametrize("part", [{"overlap": 0.2}, {"correlation": 0.15, "agreement": 0.55}])
def test_a_part_that_agrees_well_and_faint_vessels_are_accepted_in_pictures(part):
    assert judge({**GOOD, "correlation": 0.3, **part})[0] == "accept"


@pytest.mark.parametrize("missing", ["agreement", "blocks", "overlap", "inconsistency", "folding"])
def test_a_number_that_was_not_measured_counts_as_bad(missing):
    assert judge({k: v for k, v in GOOD.items() if k != missing})[0] == "fail"
