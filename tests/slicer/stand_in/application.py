"""Puts qt, ctk, slicer.app and the base classes of scripted modules where Slicer has them."""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PySide6 import QtCore, QtWidgets


class Application:
    """slicer.app."""

    applicationName = "Slicer"

    def __init__(self, application_logic: Any, folder: Path) -> None:
        self._logic = application_logic
        self._settings = QtCore.QSettings(str(folder / "Slicer.ini"), QtCore.QSettings.IniFormat)
        self.slots: dict[str, list[Callable[[], Any]]] = {}
        self.temporaryPath = str(folder)
        self.slicerHome = str(folder)

    def applicationLogic(self) -> Any:
        return self._logic

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    settings = userSettings

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def testingEnabled(self) -> bool:
        return False

    def moduleManager(self) -> SimpleNamespace:
        return SimpleNamespace(connect=lambda *_: None, disconnect=lambda *_: None)

    def connect(self, signature: str, slot: Callable[[], Any]) -> None:
        self.slots.setdefault(signature, []).append(slot)

    def emit(self, signature: str) -> None:
        for slot in self.slots.get(signature, ()):
            slot()


class ScriptedLoadableModule:
    """A module as Slicer's loader makes it."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """The module's widget; parent has a layout already."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.layout = parent.layout()

    def resourcePath(self, name: str) -> str:
        source = sys.modules[type(self).__module__].__file__ or ""
        return str(Path(source).parent / "Resources" / name)

    def setup(self) -> None:
        """Slicer adds its buttons for developers here."""


class ScriptedLoadableModuleLogic:
    """The module's logic."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__.removesuffix("Logic")


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's own test."""

    def delayDisplay(self, message: str, msec: int = 0) -> None:
        assert message
        assert msec >= 0


def _i18n() -> ModuleType:
    module = ModuleType("slicer.i18n")
    module.tr = lambda text: text
    module.translate = lambda _context, text: text
    return module


def _sample_data(registered: list[dict[str, Any]]) -> ModuleType:
    module = ModuleType("SampleData")
    module.SampleDataLogic = SimpleNamespace(
        registerCustomSampleDataSource=lambda **source: registered.append(source)
    )
    return module


def install(patch: pytest.MonkeyPatch, slicer: Any, folder: Path) -> Application:
    """Make a Slicer of it until patch is undone; needs a scene and its application logic."""
    from stand_in.python_qt import qt_module
    from stand_in.widgets import WIDGETS

    if QtWidgets.QApplication.instance() is None:
        sys.modules[__name__].__dict__["qt_application"] = QtWidgets.QApplication([])
        QtWidgets.QApplication.setStyle("fusion")
    ctk = ModuleType("ctk")
    for name in ("ctkCollapsibleButton", "ctkSliderWidget"):
        setattr(ctk, name, WIDGETS[name])
    base = ModuleType("slicer.ScriptedLoadableModule")
    for kind in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, kind.__name__, kind)
    registered: list[dict[str, Any]] = []
    for name, module in {
        "qt": qt_module(WIDGETS),
        "ctk": ctk,
        "slicer.i18n": _i18n(),
        "slicer.ScriptedLoadableModule": base,
        "SampleData": _sample_data(registered),
    }.items():
        patch.setitem(sys.modules, name, module)
    application = Application(slicer.app.applicationLogic(), folder)
    application.samples = registered
    patch.setattr(slicer, "app", application)
    patch.setattr(slicer, "i18n", sys.modules["slicer.i18n"], raising=False)
    patch.setattr(slicer, "modules", SimpleNamespace(), raising=False)
    patch.setattr(slicer.util, "mainWindow", lambda: None)
    return application
