"""While a registration runs, and how it ends."""

from __future__ import annotations

import itertools
import logging
import time

import pytest

from retreg.errors import RegistrationError


def nodes(scene):
    return {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}


def test_register_becomes_cancel_with_progress_while_it_runs(ready):
    ready.press("registerButton")
    ready.until(lambda: "Comparing the images" in ready.message)
    ui = ready.ui
    assert ui.registerButton.text == "Cancel"
    assert ui.registerButton.enabled
    assert ui.progressBar.visible
    assert (ui.progressBar.value, ui.progressBar.maximum) == (325, 1000)
    assert not ui.registrationButton.enabled
    ready.server.gate.set()
    ready.until(lambda: not ready.panel.busy)
    assert ui.registerButton.text == "Register"
    assert not ui.progressBar.visible
    assert ui.registrationButton.enabled


def test_the_window_lives_while_it_runs(ready):
    import qt

    beats = []
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: beats.append(time.monotonic()))
    timer.start(10)
    ready.press("registerButton")
    ready.until(lambda: len(beats) > 30)
    gaps = [b - a for a, b in itertools.pairwise(beats)]
    assert max(gaps) < 0.5
    ready.server.gate.set()
    ready.until(lambda: not ready.panel.busy)


def test_cancel_is_idle_within_a_second_and_leaves_nothing(ready, scene, volumes):
    before = nodes(scene)
    ready.press("registerButton")
    ready.until(lambda: "Comparing" in ready.message)
    start = time.monotonic()
    ready.press("registerButton")
    assert time.monotonic() - start < 1.0
    assert not ready.panel.busy
    assert ready.ui.registerButton.text == "Register"
    assert ready.message == "Cancelled; nothing was changed."
    assert ready.server.cancelled.wait(1.0), "the server was not told"
    ready.app.processEvents()
    assert nodes(scene) == before
    assert volumes[1].GetParentTransformNode() is None


def test_the_servers_sentence_is_shown_and_nothing_is_left(ready, scene):
    before = nodes(scene)
    ready.server.error = RegistrationError("No transform was found; the images share too little.")
    ready.server.gate.set()
    ready.register()
    assert ready.message == "No transform was found; the images share too little."
    assert "#5c1010" in ready.ui.messageLabel.styleSheet
    assert nodes(scene) == before
    assert not ready.ui.resultButton.enabled


def test_an_unexpected_error_is_one_sentence_and_its_text_stays_out_of_the_log(ready, caplog):
    ready.server.error = KeyError("Doe^John 1970-01-01")
    ready.server.gate.set()
    with caplog.at_level(logging.DEBUG):
        ready.register()
    assert ready.message.startswith("Something went wrong that nobody foresaw (KeyError at ")
    assert "Doe" not in ready.message
    assert "Doe" not in caplog.text
    assert "KeyError at conftest.py" in caplog.text


def test_an_error_in_a_slot_is_a_sentence_too(ready, monkeypatch, caplog):
    def broken(*_arguments, **_options):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(ready.widget.logic, "register_async", broken)
    ready.press("registerButton")
    assert "ZeroDivisionError" in ready.message
    assert "secret" not in ready.message + caplog.text
    assert ready.ui.registerButton.text == "Register"


def test_deleting_an_image_meanwhile_ends_in_a_sentence(ready, scene, volumes):
    ready.press("registerButton")
    ready.until(lambda: "Comparing" in ready.message)
    scene.RemoveNode(volumes[1])
    ready.server.gate.set()
    ready.until(lambda: not ready.panel.busy)
    assert "was removed before its registration ended" in ready.message


def test_closing_the_scene_ends_the_registration(ready, scene):
    ready.press("registerButton")
    ready.until(lambda: "Comparing" in ready.message)
    scene.Clear(0)
    assert not ready.panel.busy
    assert ready.server.cancelled.wait(1.0)
    ready.app.processEvents()
    assert scene.GetNumberOfNodesByClass("vtkMRMLTransformNode") == 0


@pytest.fixture
def remote(ready):
    ready.connect("https://far.example")
    ready.server.gate.set()
    return ready


def test_nothing_is_sent_elsewhere_without_agreement(remote):
    remote.answer = False
    remote.register()
    title, text, _agree = remote.asked[0]
    assert "another computer" in title
    assert "far.example" in text
    assert "No DICOM header" in text
    assert remote.server.orders == []
    assert remote.message.startswith("Nothing was sent")


def test_agreement_is_asked_for_once(remote):
    remote.register()
    remote.press("undoButton")
    remote.register()
    assert len(remote.asked) == 1
    assert len(remote.server.orders) == 2


def test_nobody_is_asked_before_sending_to_this_computer(ready):
    ready.server.gate.set()
    ready.register()
    assert ready.asked == []
