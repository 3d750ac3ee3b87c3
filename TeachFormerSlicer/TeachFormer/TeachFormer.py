"""TeachFormer: segmentation with light networks distilled from transformer teachers, with attention and uncertainty.

The module's four classes, as Slicer finds them; what they do is in ``TeachFormerLib``.
"""

import sys
import traceback

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin
from TeachFormerLib.logic import Logic


class TeachFormer(ScriptedLoadableModule):
    """What Slicer shows of the module; sample data is registered once the application has started."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("TeachFormer")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["The TeachFormer developers"]
        parent.helpText = _(
            "Segments CT, PET and MR volumes with light networks distilled from transformer teachers, and shows where "
            "the network looked and where it is unsure. A trained model is included and works without a network "
            'connection. See the <a href="https://github.com/TeachFormer/SlicerTeachFormer/blob/main/docs/TUTORIAL.md">'
            "tutorial</a>. <b>Research only. This is not a medical device.</b>"
        )
        parent.acknowledgementText = _(
            "Implements Teach-Former (Hossain et al., Sci Rep 2025) and MISSU. The included weights were trained on "
            "the soft-tissue sarcoma collection (CC BY 3.0; Vallieres et al., 10.7937/K9/TCIA.2015.7GO2GSKS)."
        )
        slicer.app.connect("startupCompleted()", self.onStartupCompleted)

    def onStartupCompleted(self):
        from TeachFormerLib import sampledata

        sampledata.register(self.resourcePath("Icons"))


class TeachFormerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel's life in the application; the panel itself is ``TeachFormerLib.widget.Panel``."""

    def __init__(self, parent=None):
        self.panel = None  # first: without a parent, the base class calls setup at once
        self.logic = None
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from TeachFormerLib.widget import Panel

        self.logic = TeachFormerLogic()
        self.panel = Panel(
            parent=self.parent,
            layout=self.layout,
            resourcePath=self.resourcePath,
            logic=self.logic,
            observer=self,
        )
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        if getattr(self.parent, "isEntered", False):  # loaded anew while it is shown: Slicer does not enter it again
            self.enter()

    def enter(self):
        self.panel.enter()

    def exit(self):
        """A run goes on while another module is shown."""

    def cleanup(self):
        if self.panel is not None:
            self.panel.close()
        self.removeObservers()

    def onSceneStartClose(self, _caller, _event):
        self.panel.onSceneStartClose()

    def onSceneEndClose(self, _caller, _event):
        if self.parent.isEntered:
            self.panel.enter()

    def onSceneEndImport(self, _caller, _event):
        """A scene that was loaded brings its own parameter node's values."""
        if self.panel.parameters is not None:
            self.panel.setParameters(self.logic.getParameterNode())

    def onReload(self):
        """The parts of the module are imported anew with it, whatever depends on what."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "TeachFormerLib"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class TeachFormerLogic(ScriptedLoadableModuleLogic, Logic):
    """``TeachFormerLib.logic.Logic`` with the scene's parameter node."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)

    def getParameterNode(self):
        from TeachFormerLib.parameters import TeachFormerParameterNode

        return TeachFormerParameterNode(super().getParameterNode())


class TeachFormerTest(ScriptedLoadableModuleTest):
    """Runs in Slicer (Reload and Test, or ctest): the phantom through the panel, to nodes, overlay and table."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Every check, whatever became of those before; those that failed are named at the end."""
        from TeachFormerLib.selftest import checks

        every, failed = checks(), []
        for name, check in every:
            self.delayDisplay(name)
            try:
                self.setUp()
                check()
            except Exception as error:
                traceback.print_exc()
                failed.append(f"{name}: {type(error).__name__}: {error}")
        if failed:
            raise AssertionError(f"{len(failed)} of {len(every)} checks failed:\n" + "\n".join(failed))
        self.delayDisplay(_("All checks passed"))
