"""The transform follows the keypoints: dragged, deleted, unselected, fitted otherwise, reset."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from refit_bench import SIGNS, Bench, result_with
from scene_content import FIXED_GRID, LARGE_GRID, PICTURE_GRID, field, points_in, result_of

from retreg.errors import OptionError
from retreg.quality import jacobian_determinants


@pytest.fixture
def bench(scene: Any) -> Bench:
    return Bench(scene, result_with(20))


def test_nothing_changes_until_something_is_edited(bench: Bench) -> None:
    result = bench.outcome.result
    assert bench.told == []
    assert bench.live.refit.transform is result.transform
    assert bench.live.refit.verdict is result.quality
    assert not bench.outcome.is_edited
    assert bench.live.refit.labels == tuple(str(n) for n in range(1, 21))


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_the_transform_follows_a_moved_point(bench: Bench, which: str) -> None:
    node = bench.outcome.transform
    bench.move(getattr(bench, which), 5, (2, -1, 1.5))
    assert len(bench.told) == 1
    expected = bench.expected()
    np.testing.assert_allclose(bench.shown(bench.probes), expected(bench.probes), atol=1e-6)
    assert np.abs(expected(bench.probes) - bench.outcome.result.transform(bench.probes)).max() > 0.1
    assert bench.outcome.transform is node
    fixed, moving, _ = bench.pairs()
    residuals = np.linalg.norm(expected(fixed) - moving, axis=1)
    np.testing.assert_allclose(bench.live.refit.residuals_mm, residuals, atol=1e-9)


def test_the_moving_volume_follows(bench: Bench) -> None:
    import vtk

    bench.move(bench.fixed, 5, (2, -1, 1.5))
    general = vtk.vtkGeneralTransform()
    bench.outcome.moving.GetParentTransformNode().GetTransformFromWorld(general)
    x = bench.probes[0]
    moved = np.array(general.TransformPoint(*(x * SIGNS))) * SIGNS
    np.testing.assert_allclose(moved, bench.expected()(x[None])[0], atol=1e-6)


def test_the_lines_the_table_and_the_text_follow(bench: Bench) -> None:
    from vtk.util.numpy_support import vtk_to_numpy

    from RetRegLib.scene.reports import metrics_of

    bench.move(bench.fixed, 5, (2, -1, 1.5))
    mesh = bench.outcome.lines.GetPolyData()
    fixed, moving, _ = bench.pairs()
    points = vtk_to_numpy(mesh.GetPoints().GetData()) * SIGNS
    np.testing.assert_allclose(points, np.vstack([fixed, moving]), atol=1e-9)
    left = vtk_to_numpy(mesh.GetPointData().GetArray("residual_mm"))
    np.testing.assert_allclose(left[:20], bench.live.refit.residuals_mm)
    assert metrics_of(bench.outcome.metrics)["verdict"] == "check"
    edited = json.loads(bench.outcome.provenance.GetText())["edited"]
    assert edited["transform"] == "tps"
    assert edited["smoothing"] == 0.1


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_a_deleted_point_leaves_both_lists_and_the_fit(bench: Bench, which: str) -> None:
    getattr(bench, which).RemoveNthControlPoint(5)
    assert bench.fixed.GetNumberOfControlPoints() == bench.moving.GetNumberOfControlPoints() == 19
    assert "6" not in bench.live.refit.labels
    np.testing.assert_allclose(bench.shown(bench.probes), bench.expected()(bench.probes), atol=1e-6)
    labels = [p.GetNthControlPointLabel(5) for p in (bench.fixed, bench.moving)]
    assert labels == ["7", "7"]


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_an_unselected_point_counts_no_longer_and_can_come_back(bench: Bench, which: str) -> None:
    leader = getattr(bench, which)
    before = bench.live.refit.transform(bench.probes)
    leader.SetNthControlPointSelected(5, False)
    assert not bench.fixed.GetNthControlPointSelected(5)
    assert not bench.moving.GetNthControlPointSelected(5)
    np.testing.assert_allclose(bench.shown(bench.probes), bench.expected()(bench.probes), atol=1e-6)
    assert np.abs(bench.shown(bench.probes) - before).max() > 0.01
    assert len(bench.live.refit.residuals_mm) == 20
    leader.SetNthControlPointSelected(5, True)
    np.testing.assert_allclose(bench.shown(bench.probes), before, atol=1e-6)


def test_an_outlier_can_be_taken_in(bench: Bench) -> None:
    bench.moving.SetNthControlPointSelected(0, True)
    assert bench.fixed.GetNthControlPointSelected(0)
    np.testing.assert_allclose(bench.shown(bench.probes), bench.expected()(bench.probes), atol=1e-6)


def test_a_new_pair_is_taken_in_once_both_points_have_its_label(bench: Bench) -> None:
    bench.fixed.AddControlPoint([0.0, 1, 2], "21")
    assert len(bench.live.refit.labels) == 20
    bench.moving.AddControlPoint([1.0, 2, 2], "21")
    assert bench.live.refit.labels[-1] == "21"
    assert len(bench.live.refit.residuals_mm) == 21


def test_a_renamed_point_keeps_its_partner(bench: Bench) -> None:
    bench.fixed.SetNthControlPointLabel(5, "optic disc")
    assert bench.moving.GetNthControlPointLabel(5) == "optic disc"
    assert "optic disc" in bench.live.refit.labels
    assert bench.moving.GetNumberOfControlPoints() == 20


@pytest.mark.parametrize("family", ["rigid", "similarity", "affine", "tps"])
def test_another_family_is_fitted_in_place(bench: Bench, family: str) -> None:
    bench.live.set_family(family)
    expected = bench.expected(family)
    np.testing.assert_allclose(bench.shown(bench.probes), expected(bench.probes), atol=1e-6)
    assert bool(bench.outcome.transform.IsLinear()) == (family != "tps")
    bench.live.set_family("tps")
    np.testing.assert_allclose(bench.shown(bench.probes), bench.expected()(bench.probes), atol=1e-6)


def test_the_smoothing_is_fitted_in_place(bench: Bench) -> None:
    for smoothing in (0.0, 1.0, 100.0):
        bench.live.set_smoothing(smoothing)
        expected = bench.expected(smoothing=smoothing)
        np.testing.assert_allclose(bench.shown(bench.probes), expected(bench.probes), atol=1e-6)
    bench.live.set_smoothing(0)
    used = bench.live.refit.residuals_mm[2:]
    assert used.max() < 1e-6


def test_an_unknown_family_is_refused(bench: Bench) -> None:
    from RetRegLib.refit.live_refit import LiveRefit

    with pytest.raises(OptionError, match="'deformable' cannot be fitted"):
        bench.live.set_family("deformable")
    with pytest.raises(OptionError, match="use one of correction, rigid"):
        LiveRefit(bench.outcome, "bspline", 0.1)
    assert not bench.outcome.is_edited


def test_reset_brings_everything_back(bench: Bench) -> None:
    from RetRegLib.scene.markups import keypoints_from_markups

    bench.move(bench.fixed, 5, (4, 4, 4))
    bench.moving.RemoveNthControlPoint(9)
    bench.live.set_family("rigid")
    bench.live.set_smoothing(3.0)
    bench.live.reset()
    result = bench.outcome.result
    for node, keypoints in (
        (bench.fixed, result.fixed_keypoints),
        (bench.moving, result.moving_keypoints),
    ):
        found = keypoints_from_markups(node)
        np.testing.assert_allclose(found.points, keypoints.points, atol=1e-9)
        np.testing.assert_array_equal(found.inliers, keypoints.inliers)
    np.testing.assert_allclose(bench.shown(bench.probes), result.transform(bench.probes), atol=1e-6)
    assert not bench.outcome.is_edited
    assert (bench.live.family, bench.live.smoothing) == ("tps", 0.1)
    assert bench.told[-1].verdict is result.quality
    assert "edited" not in json.loads(bench.outcome.provenance.GetText())
    bench.move(bench.moving, 3, (1, 0, 0))
    np.testing.assert_allclose(bench.shown(bench.probes), bench.expected()(bench.probes), atol=1e-6)


def test_too_few_points_keep_the_last_transform_and_say_so(bench: Bench) -> None:
    for index in range(3, 20):
        bench.fixed.SetNthControlPointSelected(index, False)
    refit = bench.live.refit
    assert refit.problem == "1 point pairs with a weight were given; at least 3 are needed."
    kept = refit.transform(bench.probes)
    np.testing.assert_allclose(bench.shown(bench.probes), kept, atol=1e-6)
    bench.fixed.SetNthControlPointSelected(5, True)
    bench.fixed.SetNthControlPointSelected(6, True)
    bench.fixed.SetNthControlPointSelected(7, True)
    assert bench.live.refit.problem == ""


def test_removing_all_points_is_no_accident(bench: Bench) -> None:
    bench.fixed.RemoveAllControlPoints()
    assert bench.moving.GetNumberOfControlPoints() == 0
    assert "at least 3" in bench.live.refit.problem
    bench.live.reset()
    assert bench.moving.GetNumberOfControlPoints() == 20


def test_a_small_edit_keeps_the_verdict_and_a_large_one_asks_to_look(bench: Bench) -> None:
    bench.move(bench.fixed, 5, (0.01, 0, 0))
    verdict = bench.live.refit.verdict
    assert (verdict.verdict, verdict.reason) == ("accept", "Half of the image fits.")
    assert verdict.numbers["agreement"] == 0.5
    bench.move(bench.fixed, 5, (5, 0, 0))
    verdict = bench.live.refit.verdict
    assert verdict.verdict == "check"
    assert verdict.reason.startswith("Edited by hand, up to ")
    assert "agreement" not in verdict.numbers


def test_folds_are_found_where_there_are_any(bench: Bench) -> None:
    bench.live.set_smoothing(0)
    everywhere = FIXED_GRID.lattice()
    verdicts = []
    for index, shift in [(5, (-60, 0, 0)), (5, (60, 0, 0)), (8, (0, 40, 0)), (12, (0, 0, 40))]:
        bench.move(bench.moving, index, shift)
        refit = bench.live.refit
        truth = jacobian_determinants(refit.transform, everywhere, np.eye(3), 1.0).min() <= 0
        verdicts.append(refit.verdict.verdict)
        assert (verdicts[-1] == "fail") == truth
        assert ("folds" in refit.verdict.reason) == truth
        bench.move(bench.moving, index, np.multiply(shift, -1))
    assert set(verdicts) == {"check", "fail"}


def test_while_a_fixed_point_is_dragged_the_image_follows(bench: Bench) -> None:
    start = np.array(bench.fixed.GetNthControlPointPositionWorld(5)) * SIGNS
    bench.begin(bench.fixed)
    for step in (1, 2, 3):
        bench.drag(bench.fixed, 5, start + (step, 0, 0))
        time.sleep(3 * bench.live.refit.seconds + 0.01)  # the views are drawn in the meantime
        near = bench.expected()(bench.probes)
        np.testing.assert_allclose(bench.shown(bench.probes), near, atol=0.3)
    bench.end(bench.fixed)
    np.testing.assert_allclose(bench.shown(bench.probes), bench.expected()(bench.probes), atol=1e-6)


def test_events_that_come_too_fast_are_made_up_for_at_the_end(bench: Bench) -> None:
    start = np.array(bench.fixed.GetNthControlPointPositionWorld(5)) * SIGNS
    bench.begin(bench.fixed)
    for step in range(200):
        bench.drag(bench.fixed, 5, start + (0.01 * step, 0, 0))
    assert len(bench.told) < 150
    bench.end(bench.fixed)
    np.testing.assert_allclose(bench.shown(bench.probes), bench.expected()(bench.probes), atol=1e-6)


def test_a_moving_point_is_dragged_on_an_image_that_stays_still(bench: Bench) -> None:
    """The user sees a place of the moving image and drags the moving point onto it.

    What counts is the image as it was shown while the mouse moved. Were it moved meanwhile, the
    point would run away from the mouse.
    """
    transform = bench.outcome.result.transform
    shown_place = bench.probes[3]
    before = bench.shown(bench.probes)
    start = np.array(bench.moving.GetNthControlPointPositionWorld(5)) * SIGNS
    bench.begin(bench.moving)
    for share in np.linspace(0.1, 1, 8):
        bench.drag(bench.moving, 5, start + share * (shown_place - start))
        time.sleep(3 * bench.live.refit.seconds + 0.005)
        np.testing.assert_array_equal(bench.shown(bench.probes), before)
    told = bench.told[-1]
    assert np.abs(told.transform(bench.probes) - before).max() > 0.1  # the numbers go along
    bench.end(bench.moving)
    place = np.array(bench.moving.GetNthControlPointPosition(5)) * SIGNS
    np.testing.assert_allclose(place, transform(shown_place[None])[0], atol=1e-6)
    np.testing.assert_allclose(bench.shown(bench.probes), bench.expected()(bench.probes), atol=1e-6)


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_a_mere_click_changes_nothing(scene: Any, which: str) -> None:
    bench = Bench(scene, result_of(field(), points_in(FIXED_GRID, 20)))
    points = getattr(bench, which)
    bench.begin(points)
    points.SetNthControlPointPosition(5, points.GetNthControlPointPosition(5))
    bench.end(points)
    assert bench.told == []
    assert not bench.outcome.is_edited


def test_a_moving_list_that_was_taken_out_follows_at_once(bench: Bench) -> None:
    bench.moving.SetAndObserveTransformNodeID(None)
    start = np.array(bench.moving.GetNthControlPointPositionWorld(5)) * SIGNS
    before = bench.shown(bench.probes)
    bench.begin(bench.moving)
    bench.drag(bench.moving, 5, start + (3, 0, 0))
    assert np.abs(bench.shown(bench.probes) - before).max() > 0.1


def test_points_of_a_picture_stay_in_its_plane(scene: Any) -> None:
    bench = Bench(scene, result_with(20, PICTURE_GRID), PICTURE_GRID)
    before = bench.live.refit.transform(bench.probes)
    bench.move(bench.fixed, 5, (0, 0, 0.4))
    bench.move(bench.moving, 6, (0, 0, -0.3))
    np.testing.assert_allclose(bench.shown(bench.probes), before, atol=1e-6)
    bench.live.set_family("affine")
    moved = bench.shown(bench.probes)
    np.testing.assert_allclose(moved[:, 2], 0, atol=1e-9)


def test_a_second_live_refit_begins_with_what_the_first_one_left(bench: Bench) -> None:
    from RetRegLib.refit.live_refit import LiveRefit

    bench.move(bench.fixed, 5, (4, 0, 0))
    expected = bench.expected()(bench.probes)
    bench.live.close()
    bench.move(bench.fixed, 6, (1, 0, 0))  # nobody follows
    np.testing.assert_allclose(bench.shown(bench.probes), expected, atol=1e-6)
    again = LiveRefit(bench.outcome, "tps", 0.1)
    np.testing.assert_allclose(again.refit.transform(bench.probes), expected, atol=1e-6)
    assert again.refit.verdict.verdict == "check"
    again.reset()
    assert not bench.outcome.is_edited


def test_after_the_outcome_was_removed_nothing_breaks(bench: Bench) -> None:
    from RetRegLib.scene.outcome import remove_outcome

    remove_outcome(bench.outcome)
    bench.live.set_family("affine")
    bench.move(bench.fixed, 2, (1, 0, 0))
    bench.live.close()


@pytest.mark.parametrize("grid", [LARGE_GRID, PICTURE_GRID], ids=["volume", "picture"])
def test_256_points_are_sketched_at_once_and_settled_later(scene: Any, grid: Any) -> None:
    bench = Bench(scene, result_with(256, grid, 0.2), grid)
    for step in range(12):
        bench.move(bench.fixed, 5 + step, (0.3, -0.2, 0))
    assert len(bench.told) == 12
    near = bench.live.refit.transform(bench.probes)
    np.testing.assert_allclose(bench.shown(bench.probes), near, atol=0.6)
    bench.live.settle()
    error = np.linalg.norm(bench.shown(bench.probes) - near, axis=1)
    assert error.mean() <= 0.01
    assert error.max() <= 0.1
