"""The Qt that stands in for Slicer's is as strict as PythonQt where mistakes are easily made."""

from __future__ import annotations

import pytest


@pytest.fixture
def qt(application):
    import qt

    assert application
    return qt


def test_a_property_that_does_not_exist_cannot_be_set(qt):
    label = qt.QLabel()
    with pytest.raises(AttributeError, match="has no property 'txt'"):
        label.txt = "misspelt"


def test_properties_are_values_and_no_methods(qt):
    label = qt.QLabel("words")
    assert label.text == "words"
    with pytest.raises(TypeError):
        label.text()


def test_a_signal_that_does_not_exist_cannot_be_connected(qt):
    with pytest.raises(ValueError, match="has no signal"):
        qt.QPushButton().connect("pushed()", print)
    with pytest.raises(ValueError, match="has no signal"):
        qt.QComboBox().connect("currentIndexChanged(double)", print)


def test_a_slot_hears_as_many_values_as_the_signature_names(qt):
    heard = []
    button = qt.QPushButton()
    button.connect("clicked()", lambda *values: heard.append(values))
    box = qt.QSpinBox()
    box.connect("valueChanged(int)", lambda *values: heard.append(values))
    button.click()
    box.setValue(3)
    assert heard == [(), (3,)]


def test_the_node_selectors_get_the_scene_through_the_connections_of_the_designer_file(
    window, scene
):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Here")
    window.ui.fixedSelector.setCurrentNode(node)
    assert window.ui.fixedSelector.currentNode() is node
    window.ui.RetReg.setMRMLScene(None)
    assert window.ui.fixedSelector.currentNode() is None


def test_a_selector_of_exact_classes_leaves_out_derived_ones(qt, scene):
    from stand_in.widgets import qMRMLNodeComboBox

    assert qt
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    selector = qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(scene)
    assert selector.count == 1, "derived classes are shown unless told otherwise"
    selector.showChildNodeTypes = False
    assert selector.count == 0
    selector.setMRMLScene(None)
