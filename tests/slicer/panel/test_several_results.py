"""Several results in the panel, results of a loaded scene, and those made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retreg.errors import RegistrationError


@pytest.fixture
def kept(ready):
    """Two results of one pair: a spline, then an affine transform."""
    ready.server.gate.set()
    ready.press("keepCheckBox")
    ready.ui.familySelector.setCurrentIndex(2)
    ready.register()
    ready.ui.familySelector.setCurrentIndex(0)
    ready.register()
    assert len(ready.panel.results.outcomes) == 2, ready.message
    return ready


def test_without_being_asked_the_new_result_replaces_the_old_one(ready, scene):
    ready.server.gate.set()
    ready.register()
    ready.register()
    assert ready.ui.resultSelector.count == 1
    assert not ready.ui.flipButton.enabled
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_results_that_are_kept_stand_side_by_side_and_neither_is_on_top(kept, volumes):
    first, second = kept.panel.results.outcomes
    assert volumes[1].GetParentTransformNode() is second.transform
    assert second.transform.GetParentTransformNode() is None
    assert [kept.ui.resultSelector.itemText(n) for n in (0, 1)] == [
        "1. Moving to Fixed · volume-model · Thin-plate spline (bend) · accepted",
        "2. Moving to Fixed · volume-model · Affine (and shear) · accepted",
    ]
    assert first.transform.GetScene() is not None


def test_one_click_flips_between_the_last_two(kept, volumes):
    first, second = kept.panel.results.outcomes
    for shown in (first, second, first):
        kept.press("flipButton")
        assert kept.panel.outcome is shown
        assert volumes[1].GetParentTransformNode() is shown.transform
        assert shown.fixed_keypoints.GetDisplayVisibility()
        other = second if shown is first else first
        assert not other.fixed_keypoints.GetDisplayVisibility()


def test_flipping_keeps_the_way_of_comparing(kept, scene):
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    kept.press("checkerboardButton")
    second = view.GetBackgroundVolumeID()
    kept.press("flipButton")
    assert kept.ui.checkerboardButton.checked
    assert view.GetBackgroundVolumeID() not in (second, kept.panel.outcome.fixed.GetID())


def test_any_result_can_be_chosen_and_is_refitted(kept):
    first, _second = kept.panel.results.outcomes
    kept.ui.resultSelector.setCurrentIndex(0)
    assert kept.panel.outcome is first
    assert "Thin-plate spline" in kept.ui.verdictLabel.text
    first.fixed_keypoints.SetNthControlPointPosition(3, -4.0, -4.0, 4.0)
    assert first.is_edited


def test_removing_one_shows_the_other(kept, volumes):
    first, _second = kept.panel.results.outcomes
    kept.press("undoButton")
    assert kept.panel.outcome is first
    assert volumes[1].GetParentTransformNode() is first.transform
    assert kept.ui.undoButton.enabled
    kept.press("undoButton")
    assert kept.panel.outcome is None
    assert volumes[1].GetParentTransformNode() is None


def test_on_top_when_asked_starts_from_what_is_shown_and_says_so(ready, volumes):
    ready.server.gate.set()
    ready.ui.familySelector.setCurrentIndex(0)
    ready.register()
    first = ready.panel.outcome
    assert ready.ui.hintLabel.text == ""
    ready.press("onTopCheckBox")
    assert "registered from where it is shown" in ready.ui.hintLabel.text
    ready.register()
    assert volumes[1].GetParentTransformNode() is first.transform
    assert first.transform.GetParentTransformNode() is ready.panel.outcome.transform


def test_what_also_moves_goes_along_and_comes_back(ready, scene):
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Lesions")
    import qt

    ready.ui.alsoSelector.setCheckState(points, qt.Qt.Checked)
    ready.server.gate.set()
    ready.register()
    assert points.GetParentTransformNode() is ready.panel.outcome.transform
    ready.press("undoButton")
    assert points.GetParentTransformNode() is None
    assert ready.panel.order.parameters.also == (points,)


@pytest.mark.parametrize("edited", [False, True])
def test_a_saved_scene_goes_on_in_the_panel(
    ready, scene, tmp_path: Path, edited: bool
):
    ready.server.gate.set()
    ready.ui.familySelector.setCurrentIndex(2)
    ready.register()
    if edited:
        ready.panel.outcome.fixed_keypoints.SetNthControlPointPosition(3, -4.0, -4.0, 4.0)
    expected = ready.ui.verdictLabel.text
    assert ("Edited by hand" in expected) == edited
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    assert ready.ui.resultSelector.count == 0
    assert not ready.ui.resultButton.enabled
    scene.SetURL(scene.UnpackSlicerDataBundle(str(tmp_path / "scene.mrb"), str(tmp_path)))
    assert scene.Import()
    assert ready.ui.verdictLabel.text == expected
    outcome = ready.panel.outcome
    assert outcome.moving.GetParentTransformNode() is outcome.transform
    assert ready.ui.refitSummary.text.startswith("7 keypoints are used")
    before = ready.ui.refitSummary.text
    outcome.moving_keypoints.SetNthControlPointPosition(5, 0.0, 1.0, 0.0)
    assert ready.ui.refitSummary.text != before
    ready.press("resetButton")
    assert "<b>Accepted.</b>" in ready.ui.verdictLabel.text
    ready.press("undoButton")
    assert scene.GetFirstNodeByName("Moving").GetParentTransformNode() is None


def test_a_result_of_the_console_is_found_when_the_module_is_entered(ready, volumes):
    ready.server.gate.set()
    outcome = ready.widget.logic.register(*volumes)
    assert ready.panel.outcome is None
    ready.widget.enter()
    assert ready.panel.outcome.transform is outcome.transform


@pytest.fixture
def by_hand(window, volumes):
    window.ui.fixedSelector.setCurrentNode(volumes[0])
    window.ui.movingSelector.setCurrentNode(volumes[1])
    return window


def test_points_can_be_set_from_nothing_without_a_server(by_hand):
    assert not by_hand.ui.registerButton.enabled
    by_hand.press("landmarksButton")
    outcome = by_hand.panel.outcome
    assert "<b>Check.</b> Set by hand" in by_hand.ui.verdictLabel.text
    assert by_hand.ui.addPointsButton.checked
    assert "Click on a place" in by_hand.message
    fixed = np.array([[1.0, 1, 1], [-7, 1, 1], [1, -8, 2], [-3, -3, 6]])
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    for n, point in enumerate(fixed):
        outcome.fixed_keypoints.AddControlPoint(*point)
        assert outcome.moving_keypoints.GetNumberOfControlPoints() == n + 1
        outcome.moving_keypoints.SetNthControlPointPosition(n, *(turn @ point + (2, 3, -1)))
        assert "at least 3" not in by_hand.message
        if n == 0:  # the first one shifts the image onto it
            shown = np.array(outcome.moving_keypoints.GetNthControlPointPositionWorld(0))
            np.testing.assert_allclose(shown, point, atol=1e-6)
    assert by_hand.ui.refitSummary.text.startswith("4 keypoints are used")
    assert "all within 0.00 mm" in by_hand.ui.refitSummary.text
    matrix = outcome.transform.GetTransformFromParent().GetMatrix()
    found = [[matrix.GetElement(row, col) for col in range(3)] for row in range(3)]
    np.testing.assert_allclose(found, turn, atol=1e-6)
    assert "Set by hand" in by_hand.ui.verdictLabel.text


def test_a_registration_can_start_from_points_that_were_set(by_hand):
    by_hand.press("landmarksButton")
    first = by_hand.panel.outcome
    by_hand.connect()
    by_hand.server.gate.set()
    by_hand.press("onTopCheckBox")
    by_hand.register()
    assert by_hand.panel.outcome is not first, by_hand.message
    assert first.transform.GetParentTransformNode() is by_hand.panel.outcome.transform


def test_points_set_by_hand_are_not_replaced_by_a_registration(by_hand):
    by_hand.press("landmarksButton")
    by_hand.panel.outcome.fixed_keypoints.AddControlPoint(1.0, 1, 1)
    first = by_hand.panel.outcome
    by_hand.connect()
    by_hand.server.gate.set()
    by_hand.register()
    assert by_hand.panel.results.outcomes[0] is first
    assert first.fixed_keypoints.GetNumberOfControlPoints() == 1
    assert len(by_hand.panel.results.outcomes) == 2


def test_after_a_failure_points_by_hand_leave_the_earlier_result(ready):
    ready.server.gate.set()
    ready.register()
    first = ready.panel.outcome
    ready.server.error = RegistrationError("No transform was found.")
    ready.register()
    ready.press("landmarksButton")
    assert first in ready.panel.results.outcomes
    assert first.metrics.GetScene() is not None


def test_each_result_keeps_its_way_of_refitting(kept):
    kept.ui.refitFamilySelector.setCurrentIndex(1)
    assert kept.panel.outcome.is_edited
    kept.press("flipButton")
    assert kept.ui.refitFamilySelector.currentText.startswith("Correct the result")
    kept.press("flipButton")
    assert kept.ui.refitFamilySelector.currentText == "Fit to all keypoints: Rigid (turn and shift)"
    kept.press("resetButton")
    assert kept.ui.refitFamilySelector.currentText.startswith("Correct the result")
    assert not kept.panel.outcome.is_edited


def test_a_loaded_result_that_moves_nothing_is_offered_but_not_shown(ready, scene, tmp_path: Path):
    ready.server.gate.set()
    ready.register()
    ready.panel.outcome.moving.SetAndObserveTransformNodeID(None)
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    scene.SetURL(scene.UnpackSlicerDataBundle(str(tmp_path / "scene.mrb"), str(tmp_path)))
    assert scene.Import()
    assert ready.panel.outcome is None
    assert ready.ui.resultSelector.count == 1
    ready.ui.resultSelector.setCurrentIndex(0)
    outcome = ready.panel.outcome
    assert outcome.moving.GetParentTransformNode() is outcome.transform


def test_adding_points_is_a_mode_of_the_mouse_that_ends_with_the_button(ready, scene):
    selection = scene.AddNewNodeByClass("vtkMRMLSelectionNode")
    interaction = scene.AddNewNodeByClass("vtkMRMLInteractionNode")
    ready.server.gate.set()
    ready.register()
    ready.press("addPointsButton")
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert selection.GetActivePlaceNodeID() == ready.panel.outcome.fixed_keypoints.GetID()
    ready.press("addPointsButton")
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    ready.press("addPointsButton")
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)  # a right click
    assert not ready.ui.addPointsButton.checked


def test_the_reach_slider_follows_the_image_and_is_for_corrections_only(ready):
    ready.server.gate.set()
    ready.register()
    assert ready.ui.refitReachTitle.text == "Reach (mm):"
    assert ready.ui.reachSlider.maximum == 12.0
    assert ready.ui.reachSlider.enabled
    ready.panel.outcome.fixed_keypoints.SetNthControlPointPosition(3, -1.5, -9.2, 6.9)
    ready.ui.reachSlider.value = 7.0
    assert ready.panel.refit._live.refit.reach_mm == 7.0
    ready.ui.reachSlider.value = 1.0
    ready.panel.outcome.fixed_keypoints.SetNthControlPointPosition(3, -4.0, -4.0, 4.0)
    assert "since the image would else fold" in ready.message
    ready.ui.refitFamilySelector.setCurrentIndex(1)
    assert not ready.ui.reachSlider.enabled
