"""Stand-ins for Slicer's Qt binding, its widgets and its application, on PySide6 without a display.

PythonQt gives Qt's properties as Python attributes; here they are set on PySide6's classes from their meta objects.
What a widget does beyond what the module uses is left out.
"""

import os
import sys
import time
import types
from pathlib import Path

from . import core

ANSWERS = {"file": "", "confirm": True}  # what the next dialogs answer
ASKED = []  # what they asked


def install():
    """The modules ``qt``, ``ctk``, ``slicer.ScriptedLoadableModule``, the widgets of ``slicer``; answers ``slicer``."""
    slicer = core.install()
    if "qt" in sys.modules:
        return slicer
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6 import QtCore, QtGui, QtWidgets

    qt = types.ModuleType("qt")
    for part in (QtCore, QtGui, QtWidgets):
        for name in dir(part):  # not vars: PySide6 makes its classes when they are asked for
            if name.startswith("Q"):
                thing = getattr(part, name)
                setattr(qt, name, thing)
                if isinstance(thing, type) and hasattr(thing, "staticMetaObject"):
                    _properties_as_attributes(thing)
    qt.QFileDialog = _FileDialog
    sys.modules["qt"] = qt
    qt.application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["TeachFormer"])
    from . import widgets

    ctk = types.ModuleType("ctk")
    ctk.ctkCollapsibleButton, ctk.ctkSliderWidget = widgets.ctkCollapsibleButton, widgets.ctkSliderWidget
    sys.modules["ctk"] = ctk
    slicer.qMRMLNodeComboBox, slicer.qMRMLTableView = widgets.qMRMLNodeComboBox, widgets.qMRMLTableView
    slicer.util.loadUI = widgets.load_ui
    slicer.util.childWidgetVariables = widgets.child_variables
    slicer.util.confirmOkCancelDisplay = lambda text, *_rest, **_more: ASKED.append(text) or ANSWERS["confirm"]
    slicer.app = _Application(qt)
    slicer.modules = types.SimpleNamespace()
    module = types.ModuleType("slicer.ScriptedLoadableModule")
    for kind in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic):
        setattr(module, kind.__name__, kind)
    module.ScriptedLoadableModuleTest = ScriptedLoadableModuleTest
    sys.modules["slicer.ScriptedLoadableModule"] = module
    return slicer


def _properties_as_attributes(kind):
    meta = kind.staticMetaObject
    for number in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(number).name()
        setattr(kind, name, property(_getter(name), _setter(name)))


def _getter(name):
    return lambda self: self.property(name)


def _setter(name):
    return lambda self, value: self.setProperty(name, value)


class _FileDialog:
    """Answers what the test wants, as PythonQt does: a text."""

    @staticmethod
    def _answer(*asked):
        ASKED.append(asked[1])
        return ANSWERS["file"]

    getExistingDirectory = getOpenFileName = getSaveFileName = _answer


class _Clipboard:
    text = ""

    def setText(self, text):
        self.text = text


class _Application:
    applicationVersion = "stand-in"

    def __init__(self, qt):
        self._qt, self._clipboard, self.connections = qt, _Clipboard(), {}

    def connect(self, signal, callback):
        self.connections[signal] = callback

    def clipboard(self):
        return self._clipboard

    def processEvents(self):
        self._qt.QApplication.processEvents()


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent

    def resourcePath(self, name):
        return str(core.MODULE / "Resources" / name)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        import qt

        self.parent = parent or qt.QWidget()
        if not hasattr(self.parent, "isEntered"):
            self.parent.isEntered = False  # as in Slicer: set when the module is shown, kept over a reload
        self.layout = self.parent.layout() or qt.QVBoxLayout(self.parent)

    def setup(self):
        pass

    def resourcePath(self, name):
        return str(core.MODULE / "Resources" / name)

    def onReload(self):
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        pass

    def getParameterNode(self):
        return core.parameters().parameterNode


class ScriptedLoadableModuleTest:
    def delayDisplay(self, text, *_rest):
        pass


def module_class(name):
    """A class of ``TeachFormer.py``."""
    install()
    import importlib

    return getattr(importlib.import_module("TeachFormer"), name)


def until(panel, condition, seconds=90.0, clock=time.perf_counter):
    """Lets the window work until the condition holds; the longest tick by the clock, in seconds.

    ``time.thread_time`` is the clock for what only computes, where other programs must not count.
    """
    import qt

    longest, end = 0.0, time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s; the status line says: {panel.ui.statusLabel.text}"
        qt.application.processEvents()
        start = clock()
        panel.tick()
        longest = max(longest, clock() - start)
        time.sleep(0.01)
    panel.tick()
    return longest


def resources():
    return Path(core.MODULE) / "Resources"
