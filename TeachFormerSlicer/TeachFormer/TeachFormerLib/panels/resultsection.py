"""What is shown of a result: surface, overlay, table."""

import qt
from slicer.i18n import tr as _

from .. import results
from .section import Section


class ResultSection(Section):
    UI = "ResultPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self._overlay = None
        self._show3D = None
        self._table = None
        self.ui.exportCsvButton.clicked.connect(self.onExport)

    def update(self):
        parameters = self.parameters
        volume = self.logic.overlayVolume(parameters)
        overlay = (
            parameters.overlay, parameters.overlayOpacity, parameters.overlayThreshold, parameters.overlayLegend,
            volume.GetID() if volume else None,
        )  # fmt: skip
        if overlay != self._overlay:
            first, self._overlay = self._overlay is None, overlay
            # A scene that was loaded shows what it showed when it was saved.
            missing = "" if first else self.logic.updateOverlay(parameters)
            if missing and not self.panel.busy:
                self.panel.say(missing)
        surface = (parameters.show3D, parameters.segmentation.GetID() if parameters.segmentation else None)
        if surface != self._show3D:
            changed, self._show3D = self._show3D is not None, surface
            if changed and not self.panel.busy:
                results.show3D(parameters.segmentation, parameters.show3D)
        table = parameters.statistics
        if table is not self._table:
            self._table = table
            self.ui.statisticsTable.setMRMLTableNode(table)
        self.ui.exportCsvButton.setEnabled(table is not None and table.GetNumberOfRows() > 0)

    def onExport(self, *_args):
        file = qt.QFileDialog.getSaveFileName(self.panel.parent, _("Statistics as CSV"), "statistics.csv", "*.csv")
        if not file:
            return
        try:
            results.writeCsv(self.parameters.statistics, file)
        except OSError as error:
            self.panel.say(
                _("{file} could not be written ({error}): choose another place.").format(file=file, error=error)
            )
            return
        self.panel.say(_("The statistics were written to {file}.").format(file=file))
