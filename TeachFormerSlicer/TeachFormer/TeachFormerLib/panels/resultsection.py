"""What is shown of a result: surface, overlay, table."""

import qt
from slicer.i18n import tr as _

from .. import results, surface
from .section import Section


class ResultSection(Section):
    UI = "ResultPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self._overlay = None
        self._shown3D = None
        self._surfaces = None  # the last `surface.SurfaceRun`, also when it has ended
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
        self._update3D(parameters.segmentation)
        table = parameters.statistics
        if table is not self._table:
            self._table = table
            self.ui.statisticsTable.setMRMLTableNode(table)
        self.ui.exportCsvButton.setEnabled(table is not None and table.GetNumberOfRows() > 0)

    def _update3D(self, segmentation):
        """Surfaces where they are wanted or some are there already; made beside the window, and not tried twice."""
        if segmentation is None or self.panel.busy or (self._surfaces is not None and self._surfaces.running):
            return
        display, show = segmentation.GetDisplayNode(), self.parameters.show3D
        state = (show, segmentation.GetID(), segmentation.GetSegmentation().GetMTime())
        if display is None or state == self._shown3D:
            return
        first, self._shown3D = self._shown3D is None, state
        if not first or show:
            display.SetVisibility3D(show)
        if surface.lacking(segmentation) and (show or surface.begun(segmentation)):
            self._surfaces = surface.SurfaceRun(segmentation)

    @property
    def threaded(self):
        return self._surfaces is not None and self._surfaces.threaded

    def poll(self):
        surfaces = self._surfaces
        if surfaces is None or not surfaces.running:
            return False
        surfaces.poll()
        if surfaces.failure:
            self.panel.say(
                _("The 3D surface could not be made ({reason}): press 'Show 3D' in the module Segmentations.").format(
                    reason=surfaces.failure.sentence
                )
            )
            self.panel.showLog([surfaces.failure.original])
        if not surfaces.running:
            self.panel.touch()
        return True

    def leaveScene(self):
        if self._surfaces is not None:
            self._surfaces.abandon()
            self._surfaces = None
        if self._table is not None:
            self.ui.statisticsTable.setMRMLTableNode(None)
        self._overlay = self._shown3D = self._table = None

    def close(self):
        if self._surfaces is not None:
            self._surfaces.close()

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
