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

PLAIN = (
    "Qt",
    "QFile",
    "QIODevice",
    "QSize",
    "QUrl",
    "QEvent",
    "QEventLoop",
    "QApplication",
    "QInputDialog",
    "QKeySequence",
)
WIDGETS = (
    "QCheckBox",
    "QComboBox",
    "QDoubleSpinBox",
    "QFrame",
    "QGroupBox",
    "QLabel",
    "QLineEdit",
    "QMessageBox",
    "QPlainTextEdit",
    "QProgressBar",
    "QPushButton",
    "QSlider",
    "QSpinBox",
    "QTableWidget",
    "QToolButton",
    "QWidget",
)
LAYOUTS = ("QFormLayout", "QGridLayout", "QHBoxLayout", "QVBoxLayout")


# Qt would take an attribute of such a name for a method that replaces its own.
VIRTUAL = {"sizeHint", "minimumSizeHint"}
VIRTUAL_IN = {"QProgressBar": {"text"}}


class PythonQtStyle:
    """Mixed into a class of PySide6, gives it the manners of PythonQt."""

    OWN_SIGNALS: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        meta = cls.staticMetaObject
        names = {meta.property(index).name() for index in range(meta.propertyCount())}
        own = {n for n in names if isinstance(getattr(cls, n, None), QtCore.Property)}
        for name in names - own - set(vars(cls)) - VIRTUAL - VIRTUAL_IN.get(cls.__name__, set()):
            setattr(cls, name, _attribute(name))
        cls.connect = _connect  # PySide6 looks for this name in the class itself only

    def __setattr__(self, name: str, value: Any) -> None:
        known = isinstance(getattr(type(self), name, None), (property, QtCore.Property))
        # QUiLoader makes every widget an attribute of the top one.
        if not (known or name.startswith("_") or isinstance(value, QtCore.QObject)):
            raise AttributeError(f"{type(self).__name__} has no property {name!r}")
        super().__setattr__(name, value)

    @property
    def name(self) -> str:
        return QtCore.QObject.objectName(self)

    def className(self) -> str:
        return type(self).__name__


def _attribute(name: str) -> property:
    """A Qt property as a property of Python."""

    def read(self: Any) -> Any:
        return QtCore.QObject.property(self, name)

    def write(self: Any, value: Any) -> None:
        QtCore.QObject.setProperty(self, name, value)

    return property(read, write)


def _connect(sender: Any, signature: str, slot: Callable[..., Any]) -> None:
    """Call slot with as many values as the signature names."""
    name, _, arguments = signature.rstrip(")").partition("(")
    spelled = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
    if sender.metaObject().indexOfSignal(spelled) < 0 and name not in sender.OWN_SIGNALS:
        raise ValueError(f"{sender.className()} has no signal {signature!r}")
    count = len([each for each in arguments.split(",") if each])
    getattr(sender, name).connect(lambda *values: slot(*values[:count]))


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
