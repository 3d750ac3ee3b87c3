"""Many cases in the background, and the table of their states."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from .. import installation
from ..batch import BatchRun, stateOf
from .section import Section, fillRow, setProgress, setText


class BatchSection(Section):
    UI = "BatchPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self.batch = None
        self._rows = {}
        self.ui.batchInputFolderButton.clicked.connect(self.onInputFolder)
        self.ui.batchInputTableButton.clicked.connect(self.onInputTable)
        self.ui.batchOutputButton.clicked.connect(self.onOutput)
        self.ui.startBatchButton.clicked.connect(self.onStart)
        self.ui.stopBatchButton.clicked.connect(self.onStop)
        self.ui.batchTable.horizontalHeader().setStretchLastSection(True)
        self.ui.batchTable.verticalHeader().setVisible(False)
        setText(self.ui.batchStatus, "")

    @property
    def running(self):
        return self.batch is not None and self.batch.running

    def reason(self):
        """Why a batch cannot be started, or an empty sentence."""
        model = self.model
        if model is None or model.fault:
            return _("Choose a model.")
        needed = installation.missing(model)
        if needed:
            return installation.sentence(needed) + "."
        if not self.parameters.batchInput.strip():
            return _("Choose the cases: a folder or a CSV file.")
        if not Path(self.parameters.batchInput).exists():
            return _("{path} does not exist.").format(path=self.parameters.batchInput)
        if not self.parameters.batchOutput.strip():
            return _("Choose the folder for the results.")
        return ""

    def update(self):
        reason = self.reason()
        self.ui.startBatchButton.setEnabled(not reason and not self.running)
        self.ui.startBatchButton.setToolTip(
            reason or _("Segment all cases with the chosen model and device, in the background.")
        )
        self.ui.stopBatchButton.setEnabled(self.running)
        self.ui.batchProgress.setVisible(self.running)
        if not self.running and self.batch is None:
            setText(self.ui.batchStatus, reason)

    def onInputFolder(self, *_args):
        self._choose("batchInput", qt.QFileDialog.getExistingDirectory(self.panel.parent, _("Folder of the cases")))

    def onInputTable(self, *_args):
        self._choose(
            "batchInput", qt.QFileDialog.getOpenFileName(self.panel.parent, _("CSV file of the cases"), "", "*.csv")
        )

    def onOutput(self, *_args):
        self._choose("batchOutput", qt.QFileDialog.getExistingDirectory(self.panel.parent, _("Folder for the results")))

    def _choose(self, field, path):
        if path:
            setattr(self.parameters, field, str(path))

    def onStart(self, *_args):
        self._rows = {}
        self.ui.batchTable.setRowCount(0)
        self.batch = BatchRun(
            model=self.model,
            source=self.parameters.batchInput,
            target=self.parameters.batchOutput,
            resume=self.parameters.batchResume,
            device=self.parameters.device,
        )
        setText(self.ui.batchStatus, _("The batch is starting ..."))
        self.panel.touch()

    def onStop(self, *_args):
        if self.running:
            self.batch.stop()
            setText(self.ui.batchStatus, _("Stopping ..."))

    def poll(self):
        if self.batch is None or self.batch.exitCode is not None or not (self.running or self.batch.failure):
            return False
        self.batch.poll()
        self._fill()
        if self.batch.running:
            setProgress(self.ui.batchProgress, self.batch.progress, "%p %")
            return True
        self._ended()
        return False

    def _fill(self):
        table = self.ui.batchTable
        for case, entry in self.batch.cases.items():
            if self._rows.get(case, (None, None))[1] == entry:
                continue
            row = self._rows[case][0] if case in self._rows else len(self._rows)
            if case not in self._rows:
                table.setRowCount(row + 1)
            self._rows[case] = (row, entry)
            fillRow(table, row, [case, *stateOf(entry)])
        if self._rows and self.batch.running:
            setText(self.ui.batchStatus, _("{count} cases so far.").format(count=len(self._rows)))

    def _ended(self):
        batch = self.batch
        if batch.cancelled:
            told = _("Stopped; started with Resume it goes on with the next case.")
        elif batch.failure:
            told = batch.failure.sentence
        elif batch.exitCode == 1:
            told = _("Done; some cases failed, the table names them.")
        else:
            told = _("Done: {folder}").format(folder=self.parameters.batchOutput)
        setText(self.ui.batchStatus, told)
        self.panel.showLog(batch.log)
        self.panel.touch()

    def close(self):
        if self.batch is not None:
            self.batch.close()
