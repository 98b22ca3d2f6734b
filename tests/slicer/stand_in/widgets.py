"""Stand-ins for the widgets of CTK and of Slicer that RetReg.ui names."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from stand_in.python_qt import PythonQtStyle


def _field(kind: Any, name: str) -> Any:
    """A Qt property kept in a Python attribute; setting it calls _changed."""

    def read(self: Any) -> Any:
        return self.__dict__[name]

    def write(self: Any, value: Any) -> None:
        self.__dict__[name] = value
        self._changed()

    return QtCore.Property(kind, read, write)


class qMRMLWidget(PythonQtStyle, QtWidgets.QWidget):
    """The top widget of a module."""

    OWN_SIGNALS = ("mrmlSceneChanged",)
    mrmlSceneChanged = QtCore.Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        """Passed on along the connections that the .ui file asks for."""
        self.mrmlSceneChanged.emit(scene)


class ctkCollapsibleButton(PythonQtStyle, QtWidgets.QWidget):
    """A titled section that can be closed."""

    OWN_SIGNALS = ("contentsCollapsed",)
    contentsCollapsed = QtCore.Signal(bool)
    HEADER = 26

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.__dict__.update(_text="", _collapsed=False, _flat=False)
        self.setContentsMargins(0, self.HEADER, 0, 0)

    text = _field(str, "_text")
    collapsed = _field(bool, "_collapsed")

    def _changed(self) -> None:
        closed = self.__dict__["_collapsed"]
        self.setMaximumHeight(self.HEADER if closed else 16_777_215)
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and child.parent() is self:
                child.setProperty("visible", not closed and not child.property("kept_hidden"))
        self.contentsCollapsed.emit(closed)
        self.update()

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        child = event.child()
        if event.added() and self.__dict__.get("_collapsed") and child.isWidgetType():
            child.setProperty("visible", False)

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        if event.position().y() < self.HEADER:
            self.collapsed = not self.collapsed

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        strip = QtCore.QRect(0, 1, QtWidgets.QWidget.width(self), self.HEADER - 4)
        painter.setPen(QtCore.Qt.NoPen)
        painter.setBrush(QtGui.QColor(222, 226, 232))
        painter.drawRoundedRect(strip, 3, 3)
        painter.setPen(QtGui.QColor(30, 30, 30))
        arrow = "▸" if self.collapsed else "▾"
        title = f"{arrow}  {self.text}"
        painter.drawText(strip.adjusted(8, 0, 0, 0), QtCore.Qt.AlignVCenter, title)


class ctkSliderWidget(PythonQtStyle, QtWidgets.QWidget):
    """A slider of real numbers with a box that shows its value."""

    OWN_SIGNALS = ("valueChanged",)
    valueChanged = QtCore.Signal(float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.__dict__.update(_min=0.0, _max=99.0, _step=1.0, _page=10.0, _decimals=2, _value=0.0)
        self.__dict__.update(_box_shown=True, _tracking=True)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._box = QtWidgets.QDoubleSpinBox()
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._slider.valueChanged.connect(self._slid)
        self._box.valueChanged.connect(lambda value: self._set(value))

    minimum = _field(float, "_min")
    maximum = _field(float, "_max")
    singleStep = _field(float, "_step")
    pageStep = _field(float, "_page")
    decimals = _field(int, "_decimals")
    spinBoxVisible = _field(bool, "_box_shown")
    tracking = _field(bool, "_tracking")

    def _get(self) -> float:
        return self.__dict__["_value"]

    def _set(self, value: float) -> None:
        value = min(max(value, self.__dict__["_min"]), self.__dict__["_max"])
        if value != self.__dict__["_value"]:
            self.__dict__["_value"] = value
            self._show_value()
            self.valueChanged.emit(value)

    value = QtCore.Property(float, _get, _set)

    def setValue(self, value: float) -> None:
        self._set(value)

    def _slid(self, steps: int) -> None:
        self._set(self.__dict__["_min"] + steps * self.__dict__["_step"])

    def _show_value(self) -> None:
        own = self.__dict__
        for inner in (self._slider, self._box):
            inner.blockSignals(True)
        self._slider.setValue(round((own["_value"] - own["_min"]) / own["_step"]))
        self._box.setValue(own["_value"])
        for inner in (self._slider, self._box):
            inner.blockSignals(False)

    def _changed(self) -> None:
        own = self.__dict__
        for inner in (self._slider, self._box):
            inner.blockSignals(True)
        self._slider.setRange(0, max(0, round((own["_max"] - own["_min"]) / own["_step"])))
        self._box.setDecimals(own["_decimals"])
        self._box.setRange(own["_min"], own["_max"])
        self._box.setSingleStep(own["_step"])
        self._box.setVisible(own["_box_shown"])
        for inner in (self._slider, self._box):
            inner.blockSignals(False)
        own["_value"] = min(max(own["_value"], own["_min"]), own["_max"])
        self._show_value()


class qMRMLNodeComboBox(PythonQtStyle, QtWidgets.QComboBox):
    """A list of the scene's nodes of some classes."""

    OWN_SIGNALS = ("currentNodeChanged",)
    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.__dict__.update(_types=[], _none=False, _none_text="None", _add=True, _remove=True)
        self.__dict__.update(_rename=False, _edit=False, _hidden=False, _child_types=True)
        self.__dict__.update(_select_new=False, _scene=None, _tags=[], _node_id="")
        self.currentIndexChanged.connect(self._index_changed)

    nodeTypes = _field("QStringList", "_types")
    noneEnabled = _field(bool, "_none")
    noneDisplay = _field(str, "_none_text")
    addEnabled = _field(bool, "_add")
    removeEnabled = _field(bool, "_remove")
    renameEnabled = _field(bool, "_rename")
    editEnabled = _field(bool, "_edit")
    showHidden = _field(bool, "_hidden")
    showChildNodeTypes = _field(bool, "_child_types")
    selectNodeUponCreation = _field(bool, "_select_new")

    def setMRMLScene(self, scene: Any) -> None:
        own = self.__dict__
        if own["_scene"]:
            for tag in own["_tags"]:
                own["_scene"].RemoveObserver(tag)
        own.update(_scene=scene, _tags=[])
        if scene:
            kinds = slicer.vtkMRMLScene
            events = (kinds.NodeAddedEvent, kinds.NodeRemovedEvent, kinds.EndCloseEvent)
            own["_tags"] = [scene.AddObserver(e, lambda *_: self._changed()) for e in events]
        self._changed()

    def currentNode(self) -> Any:
        scene, node_id = self.__dict__["_scene"], self.__dict__["_node_id"]
        return scene.GetNodeByID(node_id) if scene and node_id else None

    def setCurrentNode(self, node: Any) -> None:
        self._changed()
        index = self.findData(node.GetID() if node else "")
        self.setCurrentIndex(max(index, 0))
        self._index_changed()  # also when signals are blocked

    def _fits(self, node: Any) -> bool:
        own = self.__dict__
        if node.GetHideFromEditors() and not own["_hidden"]:
            return False
        matches = node.IsA if own["_child_types"] else node.GetClassName().__eq__
        return any(matches(kind) for kind in own["_types"])

    def _changed(self) -> None:
        own = self.__dict__
        wanted = own["_node_id"]
        blocked = self.blockSignals(True)
        self.clear()
        if own["_none"]:
            self.addItem(own["_none_text"], "")
        nodes = own["_scene"].GetNodes() if own["_scene"] else None
        for index in range(nodes.GetNumberOfItems() if nodes else 0):
            node = nodes.GetItemAsObject(index)
            if self._fits(node):
                self.addItem(node.GetName(), node.GetID())
        first = 0 if own["_none"] else -1  # the real one selects nothing by itself
        self.setCurrentIndex(max(self.findData(wanted), first))
        self.blockSignals(blocked)
        self._index_changed()

    def _index_changed(self, _index: int = 0) -> None:
        node_id = self.itemData(QtWidgets.QComboBox.currentIndex(self)) or ""
        if node_id != self.__dict__["_node_id"]:
            self.__dict__["_node_id"] = node_id
            self.currentNodeChanged.emit(self.currentNode())


class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """A list of which several nodes can be checked."""

    OWN_SIGNALS = ("currentNodeChanged", "checkedNodesChanged")
    checkedNodesChanged = QtCore.Signal()

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.__dict__.update(_checked=[])

    def checkedNodes(self) -> list[Any]:
        own = self.__dict__
        found = [own["_scene"].GetNodeByID(each) for each in own["_checked"] if own["_scene"]]
        return [node for node in found if node is not None]

    def setCheckState(self, node: Any, state: Any) -> None:
        checked = [each for each in self.__dict__["_checked"] if each != node.GetID()]
        if state == QtCore.Qt.Checked:
            checked.append(node.GetID())
        if checked != self.__dict__["_checked"]:
            self.__dict__["_checked"] = checked
            self.checkedNodesChanged.emit()


WIDGETS = {
    kind.__name__: kind
    for kind in (
        qMRMLWidget,
        ctkCollapsibleButton,
        ctkSliderWidget,
        qMRMLNodeComboBox,
        qMRMLCheckableNodeComboBox,
    )
}
