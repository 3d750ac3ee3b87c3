"""The lines of the last run, and what a report of a problem needs."""

import slicer
from slicer.i18n import tr as _

from .. import diagnostics
from .section import Section


class LogSection(Section):
    UI = "LogPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self.ui.copyDiagnosticsButton.clicked.connect(self.onCopy)

    def show(self, lines):
        self.ui.logText.setPlainText("\n".join(line for line in lines if line))

    def onCopy(self, *_args):
        slicer.app.clipboard().setText(diagnostics.text(self.panel.devices, self.model, self.panel.runSection.run))
        self.panel.say(_("The diagnostics are in the clipboard."))
