"""Stand-ins for the widgets of CTK and MRML that the panel's .ui files name; see ``gui.py``."""

from types import SimpleNamespace

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

HEADER = 26  # pixels of a section's title


class ctkCollapsibleButton(QtWidgets.QWidget):  # noqa: N801
    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(2, HEADER, 2, 4)

    def _set_text(self, text):
        self._text = text

    def _set_collapsed(self, collapsed):
        self._collapsed = collapsed
        self.setMaximumHeight(HEADER - 4 if collapsed else 16777215)

    text = QtCore.Property(str, lambda self: self._text, _set_text)
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _set_collapsed)

    def mousePressEvent(self, event):
        self._set_collapsed(not self._collapsed)

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        bar = QtCore.QRect(0, 0, QtWidgets.QWidget.width.fget(self), HEADER - 4)
        painter.fillRect(bar, QtGui.QColor(205, 205, 205))
        painter.drawText(
            bar.adjusted(8, 0, 0, 0), QtCore.Qt.AlignVCenter, ("▸ " if self._collapsed else "▾ ") + self._text
        )


class ctkSliderWidget(QtWidgets.QWidget):  # noqa: N801
    valueChanged = QtCore.Signal(float)
    STEPS = 1000

    def __init__(self, parent=None):
        super().__init__(parent)
        self._value, self._minimum, self._maximum, self._step = 0.0, 0.0, 99.0, 1.0
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._slider.setRange(0, self.STEPS)
        self._box = QtWidgets.QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self.setValue)

    def setValue(self, value):
        value = min(max(float(value), self._minimum), self._maximum)
        changed, self._value = value != self._value, value
        self._box.setValue(value)
        self._slider.setValue(round(self.STEPS * (value - self._minimum) / max(self._maximum - self._minimum, 1e-9)))
        if changed:
            self.valueChanged.emit(value)

    def _set_minimum(self, value):
        self._minimum = value
        self._box.setMinimum(value)

    def _set_maximum(self, value):
        self._maximum = value
        self._box.setMaximum(value)

    def _set_step(self, value):
        self._step = value
        self._box.setSingleStep(value)

    value = QtCore.Property(float, lambda self: self._value, setValue)
    minimum = QtCore.Property(float, lambda self: self._minimum, _set_minimum)
    maximum = QtCore.Property(float, lambda self: self._maximum, _set_maximum)
    singleStep = QtCore.Property(float, lambda self: self._step, _set_step)


class qMRMLNodeComboBox(QtWidgets.QWidget):  # noqa: N801
    """Lists the scene's nodes of its types; follows the scene."""

    currentNodeChanged = QtCore.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._types, self._none, self._scene, self._current, self._tags = [], True, None, None, []
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._box = QtWidgets.QComboBox()
        layout.addWidget(self._box)
        self._box.activated.connect(lambda index: self._choose(self._box.itemData(index)))

    def _set_types(self, types):
        self._types = list(types)
        self._fill()

    nodeTypes = QtCore.Property("QStringList", lambda self: self._types, _set_types)
    noneEnabled = QtCore.Property(bool, lambda self: self._none, lambda self, value: setattr(self, "_none", value))
    for name in ("addEnabled", "removeEnabled", "renameEnabled", "showChildNodeTypes"):
        locals()[name] = QtCore.Property(bool, lambda self: False, lambda self, value: None)
    del name

    def setMRMLScene(self, scene):
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self._tags.append(scene.AddObserver(event, lambda *_: self._fill()))
        self._fill()

    def nodes(self):
        found = [node for kind in self._types for node in slicer.util.getNodesByClass(kind)] if self._scene else []
        return [node for node in found if not node.GetHideFromEditors()]

    def _fill(self):
        self._box.clear()
        if self._none:
            self._box.addItem("None", None)
        nodes = self.nodes()
        for node in nodes:
            self._box.addItem(node.GetName(), node.GetID())
        identifiers = [node.GetID() for node in nodes]
        if self._current is not None and self._current not in identifiers:
            self._choose(None)
        self._show()

    def _show(self):
        self._box.setCurrentIndex(self._box.findData(self._current))

    def _choose(self, identifier):
        if identifier == self._current:
            return
        self._current = identifier
        self._show()
        self.currentNodeChanged.emit(self.currentNode())

    def currentNode(self):
        return self._scene.GetNodeByID(self._current) if self._scene and self._current else None

    def setCurrentNode(self, node):
        self._choose(node.GetID() if node is not None else None)


class qMRMLTableView(QtWidgets.QTableView):  # noqa: N801
    def setMRMLTableNode(self, node):
        self.node = node
        if node is not None:
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._fill())
        self._fill()

    def _fill(self):
        node = self.node
        columns = node.GetNumberOfColumns() if node is not None else 0
        model = QtGui.QStandardItemModel(node.GetNumberOfRows() if node is not None else 0, columns, self)
        for column in range(columns):
            model.setHorizontalHeaderItem(column, QtGui.QStandardItem(node.GetColumnName(column)))
            for row in range(node.GetNumberOfRows()):
                model.setItem(row, column, QtGui.QStandardItem(node.GetCellText(row, column)))
        self.setModel(model)
        self.resizeColumnsToContents()


def load_ui(path):
    loader = QtUiTools.QUiLoader()
    for kind in (ctkCollapsibleButton, ctkSliderWidget, qMRMLNodeComboBox, qMRMLTableView):
        loader.registerCustomWidget(kind)
    file = QtCore.QFile(str(path))
    assert file.open(QtCore.QIODevice.ReadOnly), path
    try:
        widget = loader.load(file)
    finally:
        file.close()
    assert widget is not None, loader.errorString()
    return widget


def child_variables(widget):
    children = widget.findChildren(QtCore.QObject)
    return SimpleNamespace(**{child.objectName: child for child in children if child.objectName.isidentifier()})
