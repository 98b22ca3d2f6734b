"""What makes a working day easier: order, swap, presets, clock, log, keys, help, readable text."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from retreg.errors import RegistrationError

MODULE = Path(__file__).parents[3] / "SlicerRetReg"


def test_the_sections_stand_in_the_order_that_people_know():
    tree = ElementTree.parse(MODULE / "Resources" / "UI" / "RetReg.ui")
    buttons = [
        widget.find("property[@name='text']/string").text
        for widget in tree.iter("widget")
        if widget.get("class") == "ctkCollapsibleButton" or widget.get("name") == "registerButton"
    ]
    assert buttons == [
        "Inputs", "Outputs", "Model", "Register", "Result", "Refit", "Advanced", "Server"
    ]  # fmt: skip


def test_fixed_and_moving_are_swapped_with_one_click(ready, volumes):
    ready.press("swapButton")
    parameters = ready.panel.order.parameters
    assert (parameters.fixed, parameters.moving) == volumes[::-1]
    assert ready.ui.fixedSelector.currentNode() is volumes[1]
    ready.press("swapButton")
    assert ready.ui.fixedSelector.currentNode() is volumes[0]


def save_preset(window, name):
    window.ui.presetSelector.currentText = name
    window.press("savePresetButton")


def test_a_preset_comes_back_in_another_scene_and_another_session(ready, scene, make_window):
    ui = ready.ui
    ui.familySelector.setCurrentIndex(2)
    ui.smoothingSlider.value = 0.0
    save_preset(ready, "  My heads ")
    assert "My heads is saved" in ready.message
    ui.familySelector.setCurrentIndex(0)
    ui.smoothingSlider.value = -2.0
    save_preset(ready, "Another")
    scene.Clear(0)
    again = make_window()
    again.connect()
    names = [again.ui.presetSelector.itemText(n) for n in range(again.ui.presetSelector.count)]
    assert names == ["Another", "My heads"]
    again.ui.presetSelector.setCurrentIndex(1)
    again.ui.presetSelector.activated.emit(1)
    assert again.panel.order.family == "tps"
    assert again.panel.order.parameters.smoothing == 1.0
    again.press("removePresetButton")
    assert [again.ui.presetSelector.itemText(0)] == ["Another"]
    assert again.ui.presetSelector.count == 1


def test_a_preset_without_a_name_is_asked_for_one(ready):
    save_preset(ready, " ")
    assert ready.message == "Type a name for the preset first."
    assert ready.ui.presetSelector.count == 0


@pytest.mark.parametrize("damaged", ["", "[1]", '{"a": 3}', '{"a": {"model": "x"}}', "nonsense"])
def test_damaged_presets_are_no_presets(make_window, application, damaged):
    application.userSettings().setValue("RetReg/presets", damaged)
    assert make_window().ui.presetSelector.count == 0


def test_the_time_runs_while_a_registration_does(ready):
    assert not ready.ui.elapsedLabel.visible
    ready.press("registerButton")
    ready.panel._began -= 75
    ready.until(lambda: ready.ui.elapsedLabel.text == "1:15 min")
    assert ready.ui.elapsedLabel.visible
    ready.server.gate.set()
    ready.until(lambda: not ready.panel.busy)
    assert not ready.ui.elapsedLabel.visible


def test_the_log_says_what_happened_and_when(ready):
    ready.server.error = RegistrationError("No transform was found.")
    ready.server.gate.set()
    ready.register()
    ready.server.error = None
    ready.register()
    assert not ready.ui.logText.visible
    ready.ui.advancedButton.collapsed = False
    ready.press("logCheckBox")
    assert ready.ui.logText.visible
    text = ready.ui.logText.plainText
    assert re.search(r"\d\d:\d\d:\d\d  No transform was found\.", text)
    assert re.search(r"\d\d:\d\d:\d\d  Done \(\d+\.\d s\): Because <it> fits\.", text)


def test_every_key_is_told_in_the_help_and_used_once(window, module):
    parent = SimpleNamespace()
    module.RetReg(parent)
    keys = [
        widget.shortcut.toString()
        for widget in vars(window.ui).values()
        if widget.className() in ("QPushButton", "QCheckBox") and widget.shortcut.toString()
    ]
    assert len(keys) == len(set(keys)) >= 10
    told = parent.helpText.replace("Ctrl+Shift+1, 2, 3", "Ctrl+Shift+1 Ctrl+Shift+2 Ctrl+Shift+3")
    assert set(re.findall(r"Ctrl\+Shift\+\w", told)) == set(keys)


def test_the_key_of_register_also_cancels(ready):
    key = ready.ui.registerButton.shortcut.toString()
    ready.press("registerButton")
    assert ready.ui.registerButton.text == "Cancel"
    assert ready.ui.registerButton.shortcut.toString() == key


def luminance(colour):
    """Relative luminance of WCAG 2.1."""
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def colours_of(label):
    """Text and background (red, green, blue from 0 to 1) of a label as it is now."""
    from PySide6.QtGui import QColor, QPalette

    style = dict(re.findall(r"(?<![-\w])(color|background): (#\w+)", label.styleSheet))
    assert len(style) in (0, 2), "a text colour needs its background, and the other way round"
    group = QPalette.Active if label.enabled else QPalette.Disabled
    palette = label.palette
    text = QColor(style.get("color", palette.color(group, QPalette.WindowText)))
    ground = QColor(style.get("background", palette.color(group, QPalette.Window)))
    return [(c.redF(), c.greenF(), c.blueF()) for c in (text, ground)]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("verdict", ["accept", "check", "fail"])
def test_every_text_can_be_read_in_light_and_dark(ready, theme, verdict):
    from PySide6.QtGui import QColor, QPalette
    from PySide6.QtWidgets import QApplication

    before = QApplication.palette()
    palette = QPalette(QColor("#efefef" if theme == "light" else "#353535"))
    QApplication.setPalette(palette)
    try:
        ready.server.verdict = verdict
        assert ready.ui.hintLabel.enabled
        ready.server.gate.set()
        ready.register()
        ready.panel.line.say("Something is doubtful.", "doubtful")
        labels = [w for w in vars(ready.ui).values() if w.className() == "QLabel" and w.enabled]
        assert len(labels) > 20
        for label in labels:
            assert contrast(*colours_of(label)) >= 4.5, label.name
    finally:
        QApplication.setPalette(before)
