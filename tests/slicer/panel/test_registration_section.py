"""Choosing what is registered and how."""

from __future__ import annotations

import math

import numpy as np
import pytest


def test_register_says_what_is_missing_until_nothing_is(window, volumes):
    button, ui = window.ui.registerButton, window.ui
    assert "Connect to a server first" in button.toolTip
    window.connect()
    assert button.toolTip == "Choose the fixed image."
    ui.fixedSelector.setCurrentNode(volumes[0])
    assert button.toolTip == ui.hintLabel.text == "Choose the moving image."
    ui.movingSelector.setCurrentNode(volumes[0])
    assert "are the same" in button.toolTip
    assert not button.enabled
    ui.movingSelector.setCurrentNode(volumes[1])
    assert button.enabled
    assert not ui.hintLabel.visible


def test_a_moving_image_under_a_transform_is_registered_from_where_it_is(ready, scene, volumes):
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Rough")
    volumes[1].SetAndObserveTransformNodeID(parent.GetID())
    ready.ui.familySelector.setCurrentIndex(1)
    assert "lies under Rough" in ready.ui.hintLabel.text
    ready.server.gate.set()
    ready.register()
    assert ready.ui.hintLabel.text == "", "the result itself is no surprise"
    assert parent.GetParentTransformNode() is ready.panel.outcome.transform
    ready.press("undoButton")
    assert volumes[1].GetParentTransformNode() is parent
    assert "lies under Rough" in ready.ui.hintLabel.text


def test_volumes_and_colour_pictures_are_offered_but_no_label_maps(window, scene, volumes):
    assert volumes
    scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Colour")
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    selector = window.ui.fixedSelector
    names = {selector.itemText(index) for index in range(selector.count)}
    assert {"Fixed", "Moving", "Colour"} <= names
    assert "Labels" not in names


def test_only_models_for_such_images_are_offered_and_described(window, slicer, scene, volumes):
    window.connect()
    selector = window.ui.modelSelector
    assert selector.count == 3
    window.ui.fixedSelector.setCurrentNode(volumes[0])
    assert [selector.itemText(n) for n in range(selector.count)] == ["Heads", "Other heads"]
    assert "for volumes" in window.ui.modelDescription.text
    assert "A. Body 2020" in window.ui.modelDescription.toolTip
    assert "A. Body 2020" in window.ui.modelSelector.toolTip
    picture = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Picture")
    slicer.util.updateVolumeFromArray(picture, np.zeros((1, 8, 8, 3), np.uint8))
    window.ui.fixedSelector.setCurrentNode(picture)
    assert [selector.itemText(n) for n in range(selector.count)] == ["Eyes"]


def test_smoothing_can_be_chosen_for_splines_only(ready):
    ui = ready.ui
    assert not ui.smoothingSlider.enabled
    ui.familySelector.setCurrentIndex(2)
    assert ui.smoothingSlider.enabled
    assert ui.smoothingLabel.text == "0.1"


@pytest.mark.parametrize(
    ("position", "smoothing", "text"),
    [(-3.0, 0.0, "0 (exact)"), (0.0, 1.0, "1"), (2.0, math.inf, "∞ (affine)")],
)
def test_the_slider_runs_from_exact_to_affine(ready, position, smoothing, text):
    ready.ui.familySelector.setCurrentIndex(2)
    ready.ui.smoothingSlider.value = position
    assert ready.ui.smoothingLabel.text == text
    assert ready.panel.order.options()["smoothing"] == smoothing


def test_the_slider_of_the_designer_file_has_the_ends_of_the_scale(window):
    from RetRegLib.panel.smoothing_scale import LEFT, RIGHT

    for slider in (window.ui.smoothingSlider, window.ui.refitSmoothingSlider):
        assert (slider.minimum, slider.maximum) == (LEFT, RIGHT)


@pytest.mark.parametrize("smoothing", [0.002, 0.1, 1.0, 37.0])
def test_a_smoothing_survives_the_slider(application, smoothing):
    from RetRegLib.panel.smoothing_scale import position_of, smoothing_at

    assert application
    assert smoothing_at(position_of(smoothing)) == pytest.approx(smoothing)


def test_the_order_reaches_the_server_as_it_was_made(ready):
    ready.server.gate.set()
    ready.ui.familySelector.setCurrentIndex(2)
    ready.ui.smoothingSlider.value = 0.0
    ready.panel.order._options.controls["robust"].click()
    ready.panel.order._options.controls["looks"].setValue(7)
    ready.register()
    assert ready.server.orders == [
        {
            "model": "volume-model",
            "transform": "tps",
            "smoothing": 1.0,
            "robust": False,
            "looks": 7,
        }
    ]


def test_options_of_another_model_are_not_sent(ready):
    from dataclasses import replace

    order = ready.panel.order
    order.show(replace(order.parameters, model="gone", options={"looks": 77, "unknown": 1}))
    assert order.model.name == "volume-model"
    assert order.options() == {"transform": "affine"}


def test_what_was_chosen_is_in_the_scene_and_comes_back_with_it(ready, slicer, scene, make_window):
    from RetRegLib.scene.parameters import parameter_node, read_parameters

    ready.ui.modelSelector.setCurrentIndex(0)
    ready.ui.familySelector.setCurrentIndex(2)
    ready.ui.smoothingSlider.value = 2.0
    ready.panel.order._options.controls["looks"].setValue(7)
    output = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Taken")
    ready.ui.transformSelector.setCurrentNode(output)

    scene.SetSaveToXMLString(1)
    scene.Commit()
    other = slicer.vtkMRMLScene()
    other.SetLoadFromXMLString(1)
    other.SetSceneXMLString(scene.GetSceneXMLString())
    other.Import()
    loaded = read_parameters(parameter_node(other))
    assert (loaded.fixed.GetName(), loaded.moving.GetName()) == ("Fixed", "Moving")
    assert loaded.transform.GetName() == "Taken"
    assert loaded.warped is None
    assert (loaded.family, loaded.smoothing, loaded.options) == ("tps", math.inf, {"looks": 7})

    again = make_window()
    again.connect()
    assert again.ui.fixedSelector.currentNode().GetName() == "Fixed"
    assert again.ui.familySelector.currentIndex == 2
    assert again.ui.smoothingLabel.text == "∞ (affine)"
    assert again.panel.order.options()["looks"] == 7


def test_opening_a_scene_shows_what_it_was_saved_with(ready, scene):
    ready.ui.familySelector.setCurrentIndex(2)
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    scene.Clear(0)
    assert ready.ui.familySelector.currentIndex == 0
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(saved)
    scene.Import()
    ui = ready.ui
    chosen = [each.currentNode().GetName() for each in (ui.fixedSelector, ui.movingSelector)]
    assert chosen == ["Fixed", "Moving"]
    assert ui.familySelector.currentIndex == 2


def test_damaged_parameters_become_the_defaults(application, scene):
    from RetRegLib.scene.parameters import Parameters, parameter_node, read_parameters

    assert application
    node = parameter_node(scene)
    for name, text in {"smoothing": '"much"', "options": "[1", "family": "7"}.items():
        node.SetParameter(name, text)
    read, plain = read_parameters(node), Parameters()
    assert (read.smoothing, read.options, read.family) == (plain.smoothing, {}, "")


def test_closing_the_scene_empties_the_order(ready, scene):
    scene.Clear(0)
    assert ready.ui.fixedSelector.currentNode() is None
    assert ready.panel.order.parameters.fixed is None
    assert ready.ui.registerButton.toolTip == "Choose the fixed image."
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Next")
    assert ready.message == ""


def test_a_chosen_image_that_is_deleted_is_no_longer_chosen(ready, scene, volumes):
    scene.RemoveNode(volumes[1])
    assert ready.ui.registerButton.toolTip == "Choose the moving image."
