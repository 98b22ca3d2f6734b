"""The result in the panel: verdict, views, live refit, undo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import vtk

from retreg.errors import RegistrationError


@pytest.fixture
def done(ready):
    ready.server.gate.set()
    ready.ui.familySelector.setCurrentIndex(2)
    ready.register()
    assert ready.panel.outcome is not None, ready.message
    return ready


@pytest.mark.parametrize(
    ("verdict", "word", "colour"),
    [
        ("accept", "Accepted", "#d8f0dc"),
        ("check", "Check", "#ffedbd"),
        ("fail", "Failed", "#fbdcd9"),
    ],
)
def test_the_verdict_is_a_word_on_a_colour_with_its_reason(ready, verdict, word, colour):
    ready.server.verdict = verdict
    ready.server.gate.set()
    ready.register()
    label = ready.ui.verdictLabel
    assert f"<b>{word}.</b> Because &lt;it&gt; fits." in label.text
    assert "volume-model · Affine" in label.text
    assert "1.2 s" in label.text
    assert colour in label.styleSheet
    assert ready.ui.resultButton.enabled
    assert not ready.ui.resultButton.collapsed


def test_chosen_outputs_take_the_result_and_others_are_made(ready, scene):
    chosen = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Mine")
    ready.ui.fixedKeypointsSelector.setCurrentNode(chosen)
    ready.server.gate.set()
    ready.register()
    assert ready.panel.outcome.fixed_keypoints is chosen
    assert chosen.GetNumberOfControlPoints() == 8
    assert ready.panel.outcome.moving_keypoints is not chosen
    assert ready.panel.outcome.warped.GetScene() is scene


def test_exactly_one_way_of_comparing_is_pressed(done):
    names = ("fadeButton", "checkerboardButton", "sideBySideButton")
    assert done.ui.fadeButton.checked
    for name in names:
        done.press(name)
        assert [n for n in names if getattr(done.ui, n).checked] == [name]
        assert done.ui.fadeSlider.enabled == (name == "fadeButton")
        assert "wrong" not in done.message


def test_the_slider_mixes_the_images_in_the_slice_views(done, scene):
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    done.ui.fadeSlider.value = 0.25
    assert view.GetForegroundOpacity() == pytest.approx(0.25)
    assert view.GetBackgroundVolumeID() == done.panel.outcome.fixed.GetID()


def test_grid_and_arrows_are_one_press_away(done):
    def shown():
        display = done.panel.outcome.transform.GetDisplayNode()
        return display is not None and bool(display.GetVisibility2D())

    assert not shown()
    done.press("gridCheckBox")
    assert shown()
    done.press("gridCheckBox")
    assert not shown()
    done.press("glyphCheckBox")
    assert shown()


def test_grid_and_arrows_take_turns_and_stay_for_the_next_result(done):
    done.press("gridCheckBox")
    done.press("glyphCheckBox")
    assert not done.ui.gridCheckBox.checked
    done.press("keypointsCheckBox")
    done.register()
    display = done.panel.outcome.transform.GetDisplayNode()
    assert display.GetVisibility2D()
    assert display.GetVisualizationMode() == display.VIS_MODE_GLYPH
    assert not done.panel.outcome.fixed_keypoints.GetDisplayVisibility()


def test_keypoints_can_be_hidden(done):
    points = done.panel.outcome.fixed_keypoints
    done.press("keypointsCheckBox")
    assert not points.GetDisplayVisibility()
    done.press("keypointsCheckBox")
    assert points.GetDisplayVisibility()


def test_undo_removes_the_result_and_puts_the_image_back(done, volumes):
    transform = done.panel.outcome.transform
    assert volumes[1].GetParentTransformNode() is transform
    done.press("undoButton")
    assert volumes[1].GetParentTransformNode() is None
    assert transform.GetScene() is None
    assert done.panel.outcome is None
    assert not done.ui.resultButton.enabled
    assert not done.ui.refitButton.enabled
    assert "was removed" in done.message


def test_after_undo_the_views_show_both_images_again(done, scene, volumes):
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    done.press("checkerboardButton")
    assert view.GetBackgroundVolumeID() != volumes[0].GetID()
    done.press("undoButton")
    assert view.GetBackgroundVolumeID() == volumes[0].GetID()
    assert view.GetForegroundVolumeID() == volumes[1].GetID()


def test_a_result_deleted_while_it_is_being_replaced_ends_in_a_sentence(done, scene):
    done.server.gate.clear()
    done.press("registerButton")
    done.until(lambda: "Comparing" in done.message)
    scene.RemoveNode(done.panel.outcome.transform)
    done.server.gate.set()
    done.until(lambda: not done.panel.busy)
    assert "is no longer there" in done.message
    assert done.panel.outcome is None


def test_a_result_deleted_elsewhere_is_forgotten(done, scene):
    scene.RemoveNode(done.panel.outcome.transform)
    assert done.panel.outcome is None
    assert not done.ui.undoButton.enabled


def test_a_second_result_takes_the_nodes_of_the_first(done, slicer, scene, volumes):
    first = done.panel.outcome
    before = scene.GetNumberOfNodes()
    done.press("checkerboardButton")
    assert scene.GetNumberOfNodes() > before
    done.ui.familySelector.setCurrentIndex(0)
    done.register()
    second = done.panel.outcome
    assert second is not first, done.message
    assert second.transform is first.transform
    assert second.transform.IsLinear()
    assert second.fixed_keypoints is first.fixed_keypoints
    assert first.metrics.GetScene() is None
    assert second.metrics.GetScene() is not None
    assert scene.GetNumberOfNodes() == before
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    found = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), found)
    items = {found.GetId(n) for n in range(found.GetNumberOfIds())}
    assert second.folder in items
    assert first.folder not in items
    done.press("undoButton")
    assert volumes[1].GetParentTransformNode() is None


def test_a_second_registration_starts_from_where_the_image_lay_at_first(done, volumes):
    given = []
    fake = done.widget.logic.connection.client

    def client():
        made = fake()
        made_register = made.register

        def register(fixed, moving, *rest, **options):
            given.append(moving.grid.world_from_index)
            return made_register(fixed, moving, *rest, **options)

        made.register = register
        return made

    object.__setattr__(done.widget.logic.connection, "client", client)
    done.register()
    assert volumes[1].GetParentTransformNode() is done.panel.outcome.transform
    assert np.allclose(given[0][:3, 3], 0)


@pytest.mark.parametrize("ending", ["error", "cancel"])
def test_a_second_registration_that_fails_leaves_the_first_result_alive(done, ending):
    first = done.panel.outcome
    done.server.gate.clear()
    done.press("registerButton")
    done.until(lambda: "Comparing" in done.message)
    assert not done.ui.refitButton.enabled
    if ending == "cancel":
        done.press("registerButton")
    else:
        done.server.error = RegistrationError("No transform was found.")
        done.server.gate.set()
        done.until(lambda: not done.panel.busy)
    assert done.panel.outcome is first
    assert first.transform.GetScene() is not None
    before = done.ui.refitSummary.text
    first.fixed_keypoints.SetNthControlPointPosition(3, -4.0, -4.0, 4.0)
    assert done.ui.refitSummary.text != before


def test_the_keypoints_that_fit_worst_lead_the_table(done):
    done.ui.refitFamilySelector.setCurrentIndex(1)
    table = done.ui.residualTable
    assert done.ui.refitSummary.text.startswith("7 keypoints are used, 1 are not.")
    assert table.rowCount == 7
    assert "1" not in [table.item(row, 0).text() for row in range(7)]
    done.panel.outcome.fixed_keypoints.SetNthControlPointPosition(5, 0.0, 0.0, 7.0)
    shown = [float(table.item(row, 1).text()) for row in range(7)]
    assert table.item(0, 0).text() == "6"
    assert shown == sorted(shown, reverse=True)


def test_another_family_refits_without_the_server(done):
    orders = len(done.server.orders)
    transform = done.panel.outcome.transform
    assert not transform.IsLinear()
    done.ui.refitFamilySelector.setCurrentIndex(1)
    found = done.panel.refit._live.refit.transform
    assert np.allclose(found(np.zeros((1, 3))), [[2.0, -1.0, 0.5]], atol=1e-6)
    assert len(done.server.orders) == orders


def test_dragging_a_keypoint_moves_the_transform_and_the_verdict_follows(done):
    points = done.panel.outcome.fixed_keypoints
    before = done.ui.refitSummary.text
    points.SetNthControlPointPosition(3, -4.0, -4.0, 4.0)
    assert done.ui.refitSummary.text != before
    assert "<b>Check.</b>" in done.ui.verdictLabel.text


def test_notes_on_the_images_stand_below_the_verdict(done):
    outcome = done.panel.outcome
    noted = replace(outcome.result, notes=("One is of <another> patient.",))
    done.panel.result.show(replace(outcome, result=noted))
    assert "Note: One is of &lt;another&gt; patient." in done.ui.verdictLabel.text


def test_reset_takes_every_edit_back(done):
    points = done.panel.outcome.fixed_keypoints
    here = np.array(points.GetNthControlPointPosition(3))
    points.SetNthControlPointPosition(3, 0.0, 0.0, 0.0)
    done.ui.refitFamilySelector.setCurrentIndex(1)
    done.press("resetButton")
    assert np.allclose(points.GetNthControlPointPosition(3), here)
    assert done.ui.refitFamilySelector.currentText.startswith("Correct the result")
    assert "<b>Accepted.</b>" in done.ui.verdictLabel.text


@pytest.mark.parametrize("button", ["warpButton", "checkerboardButton"])
def test_the_warped_image_follows_an_edited_transform_when_asked(done, slicer, button):
    warped = done.panel.outcome.warped
    before = slicer.util.arrayFromVolume(warped).copy()
    done.ui.refitFamilySelector.setCurrentIndex(1)
    done.panel.outcome.fixed_keypoints.SetNthControlPointPosition(3, -4.0, -4.0, 4.0)
    assert np.array_equal(slicer.util.arrayFromVolume(warped), before)
    done.press(button)
    assert not np.array_equal(slicer.util.arrayFromVolume(warped), before)
    done.press("resetButton")
    done.press(button)
    assert np.allclose(slicer.util.arrayFromVolume(warped), before, atol=1e-5)


def test_keypoints_can_be_moved_without_the_transform_following(done):
    done.press("followCheckBox")
    points, before = done.panel.outcome.fixed_keypoints, done.ui.refitSummary.text
    points.SetNthControlPointPosition(3, 0.0, 0.0, 0.0)
    assert done.ui.refitSummary.text == before


def test_points_that_determine_nothing_leave_a_sentence(done):
    points = done.panel.outcome.fixed_keypoints
    done.ui.refitFamilySelector.setCurrentIndex(1)
    for _ in range(6):
        points.RemoveNthControlPoint(points.GetNumberOfControlPoints() - 1)
    assert done.message.endswith(".")
    assert "point" in done.message


def test_a_row_of_the_table_leads_to_its_keypoint(done, scene):
    view = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    done.ui.residualTable.cellClicked.emit(0, 0)
    place = [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    label = done.ui.residualTable.item(0, 0).text()
    expected = done.panel.outcome.fixed_keypoints.GetNthControlPointPosition(int(label) - 1)
    assert np.allclose(place, expected, atol=1e-6)


def test_saving_as_dicom_asks_for_a_folder_and_says_how_many_objects(done, monkeypatch, tmp_path):
    import slicer

    from RetRegLib.panel import dialogs, result_section

    monkeypatch.setattr(slicer, "dicomDatabase", "the database", raising=False)
    asked = []
    monkeypatch.setattr(dialogs, "choose_folder", lambda title: asked.append(title))
    done.press("saveDicomButton")
    assert len(asked) == 1
    monkeypatch.setattr(dialogs, "choose_folder", lambda _: tmp_path)
    monkeypatch.setattr(result_section, "save_objects", lambda *given: len(given))
    done.press("saveDicomButton")
    assert done.message == "3 DICOM objects were saved."


def test_images_that_are_no_dicom_are_told_when_saving(done, monkeypatch, tmp_path):
    import slicer

    from RetRegLib.panel import dialogs

    monkeypatch.setattr(slicer, "dicomDatabase", None, raising=False)
    monkeypatch.setattr(dialogs, "choose_folder", lambda _: tmp_path)
    done.press("saveDicomButton")
    assert "was not loaded from Slicer's DICOM database" in done.message
