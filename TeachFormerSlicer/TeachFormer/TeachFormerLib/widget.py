"""The panel: its sections, the parameter node they show, and one timer that takes up what happens in the background."""

import time
from types import SimpleNamespace

import qt
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from .panels.batchsection import BatchSection
from .panels.inputssection import InputsSection
from .panels.logsection import LogSection
from .panels.modelsection import ModelSection
from .panels.resultsection import ResultSection
from .panels.runsection import RunSection
from .panels.section import setText
from .panels.trainsection import TrainSection

SECTIONS = (ModelSection, InputsSection, RunSection, ResultSection, BatchSection, TrainSection, LogSection)
TICK_MS = 100
# While a thread is at work the window gives it most of the time: Qt's loop may keep Python's lock while it waits.
THREADED_TICK_MS, TURN_S = 25, 0.02


class Panel:
    """Everything between the module's widget and its logic.

    Args:
        parent: the module's widget.
        layout: where the sections go.
        resourcePath: from a name to a file in ``Resources``.
        logic: a `logic.Logic`.
        observer: a ``VTKObservationMixin``.

    Attributes:
        parameters: the parameter node, None while there is no scene.
        models: those that are installed.
        devices: what computes here, as ``launch.py devices`` tells; None until it was asked.
    """

    def __init__(self, *, parent, layout, resourcePath, logic, observer):
        self.parent = parent
        self.logic = logic
        self.parameters = None
        self.models = []
        self.devices = None
        self.ui = SimpleNamespace()
        self._observer = observer
        self._guiTag = None
        self._said = None
        self._dirty = self._ticking = self._sceneChanged = self._closed = False
        self._region = None
        for section in SECTIONS:
            widget = slicer.util.loadUI(resourcePath(f"UI/{section.UI}.ui"))
            layout.addWidget(widget)
            setattr(self.ui, section.UI, widget)
            vars(self.ui).update(vars(slicer.util.childWidgetVariables(widget)))
        for name, widget in vars(self.ui).items():
            if name.endswith("Selector") and hasattr(widget, "setMRMLScene"):
                widget.setMRMLScene(slicer.mrmlScene)
        layout.addStretch(1)
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self.tick)
        self.sections = [section(self) for section in SECTIONS]
        self.modelSection, self.inputsSection, self.runSection, *_rest, self.logSection = self.sections
        for event in (slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent):
            observer.addObserver(slicer.mrmlScene, event, self.onSceneChanged)
        self.refreshModels()

    # --- life

    def enter(self):
        """The module is shown: its scene's parameter node is taken up, and what computes here is asked, once."""
        if self._closed:  # replaced by a reload, and some Slicers still call the one that was there before
            return
        if self.parameters is None:
            self.setParameters(self.logic.getParameterNode())
        self.refreshModels()
        if self.devices is None:
            self.runSection.probe()

    def onSceneStartClose(self):
        """A run, and what was said of it, belongs to the scene that goes; a batch or a training does not."""
        self.clearStatus()
        for section in self.sections:
            section.leaveScene()
        self.setParameters(None)

    def close(self):
        """The module goes, or is loaded anew."""
        self._closed = True
        for section in self.sections:
            section.close()
        self.onSceneStartClose()
        self.rest()

    def setParameters(self, parameters):
        """Binds the controls to a parameter node; None unbinds them."""
        if self.parameters is not None:
            self.parameters.disconnectGui(self._guiTag)
            self._observer.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onModified)
        self._observeRegion(None)
        self.parameters = parameters
        if parameters is None:
            return
        self._guiTag = parameters.connectParametersToGui(self._bound())
        self._observer.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onModified)
        if not parameters.model and self.models:
            parameters.model = self.models[0].name
        self._sceneChanged = True
        self.touch()

    def _bound(self):
        """The controls by the field that their .ui files name; Slicer's connectGui answers no tag to unbind them by."""
        named = ((widget.property("SlicerParameterName"), widget) for widget in vars(self.ui).values())
        return {name: widget for name, widget in named if name}

    # --- what the sections share

    @property
    def model(self):
        """The chosen model, or None."""
        name = self.parameters.model if self.parameters is not None else ""
        return next((model for model in self.models if model.name == name), None)

    @property
    def busy(self):
        return self.runSection.busy

    @property
    def deviceType(self):
        """cpu, cuda or mps: of the chosen device, the best one for Automatic."""
        chosen = self.parameters.device if self.parameters is not None else "auto"
        if chosen == "auto":
            found = (self.devices or {}).get("devices") or [{"id": "cpu"}]
            chosen = found[0]["id"]
        return chosen.partition(":")[0]

    def chooseModel(self, name):
        """Another model: volumes are matched to its channels anew."""
        if self.parameters is None or name == self.parameters.model:
            return
        self.parameters.model = name
        self.clearStatus()
        self._sceneChanged = True
        self.touch()

    def refreshModels(self):
        """Reads the list of models again."""
        self.models = self.logic.models()
        if self.parameters is not None and self.model is None and self.models:
            self.parameters.model = self.models[0].name
        self.touch()

    def say(self, text):
        """Puts a sentence into the status line, where it stays until something else happens."""
        self._said = text
        setText(self.ui.statusLabel, text)

    def clearStatus(self):
        self._said = None

    def showStatus(self, text):
        """What is going on, or missing; a sentence that was said stays unless something is missing now."""
        if self.busy:
            setText(self.ui.statusLabel, text)
            return
        told = self._said if self._said else text
        if self._said and text and text not in self._said:
            told = f"{self._said} {text}"
        setText(self.ui.statusLabel, told or _("Ready: press Apply."))

    def showLog(self, lines):
        self.logSection.show(lines)

    # --- events

    def onModified(self, *_args):
        self.touch()

    def onSceneChanged(self, *_args):
        self._sceneChanged = True
        self.touch()

    def touch(self):
        """Something changed: everything is brought up to date at the next tick."""
        self._dirty = True
        if not self._ticking:  # to start a timer again would put its tick off
            self._ticking = True
            self._timer.start()

    def rest(self):
        """Stops the timer until something changes."""
        self._ticking = False
        self._timer.stop()

    def tick(self):
        """Takes up what happened; the timer rests once there is nothing more to wait for."""
        waiting = [section.poll() for section in self.sections]
        if self._dirty:
            self._dirty = False
            if self.parameters is not None:
                self._update()
        threaded = any(section.threaded for section in self.sections)
        self._timer.setInterval(THREADED_TICK_MS if threaded else TICK_MS)
        if threaded:
            time.sleep(TURN_S)
        elif not any(waiting) and not self._dirty:
            self.rest()

    def _update(self):
        self._observeRegion(self.parameters.region)
        if self._sceneChanged:
            self._sceneChanged = False
            self.inputsSection.refill()
        for section in self.sections:
            section.update()

    def _observeRegion(self, node):
        """A box that is moved changes what Apply says."""
        if node is self._region:
            return
        for old, add in ((self._region, False), (node, True)):
            if old is None:
                continue
            act = self._observer.addObserver if add else self._observer.removeObserver
            act(old, vtk.vtkCommand.ModifiedEvent, self.onModified)
            act(old, slicer.vtkMRMLMarkupsNode.PointModifiedEvent, self.onModified)
        self._region = node
