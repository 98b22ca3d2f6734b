"""Questions that need an answer before anything happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

Ask = Callable[[str, str, str], bool]
"""Called with title, text and the words of the button that agrees; True when it was pressed."""


def ask(title: str, text: str, agree: str) -> bool:
    """Ask in a window of its own. Nobody is there to agree during automatic tests."""
    if slicer.app.testingEnabled():
        return False
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.setWindowTitle(title)
    box.setIcon(qt.QMessageBox.Question)
    box.setTextFormat(qt.Qt.PlainText)
    box.setText(text)
    agreed = box.addButton(agree, qt.QMessageBox.AcceptRole)
    box.setDefaultButton(box.addButton(qt.QMessageBox.Cancel))
    box.exec_()
    return bool(box.clickedButton() == agreed)


def choose_folder(title: str) -> Path | None:
    """The folder that the user chooses in a window of its own; None without one."""
    if slicer.app.testingEnabled():
        return None
    chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
    return Path(chosen) if chosen else None
