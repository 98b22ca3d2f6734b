"""Qt as PythonQt shows it in Slicer, on top of PySide6.

Properties are attributes (``button.enabled = True``), signals are connected by their C++
signature (``button.connect("clicked()", f)``), and unknown attributes are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

PLAIN = ("Qt", "QFile", "QIODevice", "QSize", "QUrl", "QEvent", "QEventLoop", "QApplication")
WIDGETS = (
    "QCheckBox",
    "QComboBox",
    "QDoubleSpinBox",
    "QFrame",
    "QGroupBox",
    "QLabel",
    "QLineEdit",
    "QMessageBox",
    "QProgressBar",
    "QPushButton",
    "QSlider",
    "QSpinBox",
    "QTableWidget",
    "QToolButton",
    "QWidget",
)
LAYOUTS = ("QFormLayout", "QGridLayout", "QHBoxLayout", "QVBoxLayout")


@cache
def properties(kind: type) -> frozenset[str]:
    """The names of the Qt properties of a class."""
    meta = kind.staticMetaObject
    return frozenset(meta.property(i).name() for i in range(meta.propertyCount()))


class PythonQtStyle:
    """Mixed into a class of PySide6, gives it the manners of PythonQt."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            if name == "name":
                return self.objectName
            if name in ("connect", "className"):  # PySide6 would give its own, of another kind
                return PythonQtStyle.__dict__[name].__get__(self)
            if name in properties(type(self)):
                return QtCore.QObject.property(self, name)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "name":
            name = "objectName"
        if name in properties(type(self)):
            QtCore.QObject.setProperty(self, name, value)
        elif name.startswith("_") or isinstance(value, QtCore.QObject):  # QUiLoader sets children
            super().__setattr__(name, value)
        else:
            raise AttributeError(f"{type(self).__name__} has no property {name!r}")

    def connect(self, signature: str, slot: Callable[..., Any]) -> None:
        """Call slot with as many values as the signature names."""
        name, _, arguments = signature.rstrip(")").partition("(")
        spelled = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
        known = self.metaObject().indexOfSignal(spelled)
        own = name in getattr(type(self), "OWN_SIGNALS", ())
        if known < 0 and not own:
            raise ValueError(f"{type(self).__name__} has no signal {signature!r}")
        count = len([each for each in arguments.split(",") if each])
        super().__getattribute__(name).connect(lambda *values: slot(*values[:count]))

    def className(self) -> str:
        return type(self).__name__


@cache
def pythonic(kind: type) -> type:
    """The class of PySide6 with the manners of PythonQt."""
    return type(kind.__name__, (PythonQtStyle, kind), {})


class UiLoader(QtUiTools.QUiLoader):
    """Builds .ui files from pythonic widgets and from those that stand in for Slicer's own."""

    def __init__(self, own_widgets: dict[str, type]) -> None:
        super().__init__()
        self._kinds = {name: pythonic(getattr(QtWidgets, name)) for name in WIDGETS} | own_widgets
        self._built: list[Any] = []

    def createWidget(self, name: str, parent: Any = None, object_name: str = "") -> Any:
        if name not in self._kinds:
            raise ValueError(f"the stand-in knows no widget {name!r}")
        widget = self._kinds[name](parent)
        widget.setObjectName(object_name)
        self._built.append(widget)  # else Python would forget its side of the widget
        return widget

    def load(self, file: QtCore.QFile) -> Any:
        """The widgets of a file, with the connections that it asks for."""
        tree = ElementTree.fromstring(bytes(file.readAll()))
        connections = tree.find("connections")
        tree.remove(connections)  # PySide6 does not know the types of the arguments
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.ReadOnly)
        top = super().load(buffer)
        found = {each.objectName: each for each in self._built}
        for connection in connections:
            sender, signal, receiver, slot = (
                connection.findtext(part) for part in ("sender", "signal", "receiver", "slot")
            )
            found[sender].connect(signal, getattr(found[receiver], slot.partition("(")[0]))
        return top


def qt_module(own_widgets: dict[str, type]) -> ModuleType:
    """The module that Slicer calls qt."""
    module = ModuleType("qt")
    for name in (*PLAIN, *LAYOUTS):
        places = (QtCore, QtGui, QtWidgets)
        setattr(module, name, next(getattr(p, name) for p in places if hasattr(p, name)))
    for name in WIDGETS:
        setattr(module, name, pythonic(getattr(QtWidgets, name)))
    module.QTimer = pythonic(QtCore.QTimer)
    module.QSettings = QtCore.QSettings
    module.QIcon, module.QPixmap, module.QColor = QtGui.QIcon, QtGui.QPixmap, QtGui.QColor
    module.QTableWidgetItem = QtWidgets.QTableWidgetItem
    module.QSizePolicy, module.QHeaderView = QtWidgets.QSizePolicy, QtWidgets.QHeaderView
    module.QUiLoader = lambda: UiLoader(own_widgets)
    return module
