"""The question before something is sent or installed."""

from __future__ import annotations

import pytest


@pytest.fixture
def answered(application, monkeypatch):
    """Presses the button with this text, in place of the user; returns what was shown."""
    import qt

    assert application
    shown = []

    def answer_with(text):
        def exec_(box):
            shown.append((box.windowTitle, box.text))
            next(each for each in box.buttons() if each.text() == text).click()

        monkeypatch.setattr(qt.QMessageBox, "exec_", exec_, raising=False)
        return shown

    return answer_with


@pytest.mark.parametrize(("pressed", "agreed"), [("Send", True), ("Cancel", False)])
def test_only_the_named_button_agrees(answered, pressed, agreed):
    from RetRegLib.panel import dialogs

    shown = answered(pressed)
    assert dialogs.ask("Send images?", "To far.example.", "Send") is agreed
    assert shown == [("Send images?", "To far.example.")]


def test_nobody_agrees_during_automatic_tests(answered, application, monkeypatch):
    from RetRegLib.panel import dialogs

    shown = answered("Send")
    monkeypatch.setattr(application, "testingEnabled", lambda: True)
    assert dialogs.ask("Send images?", "To far.example.", "Send") is False
    assert shown == []
