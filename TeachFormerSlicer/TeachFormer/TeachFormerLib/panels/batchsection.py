"""Many cases in the background, and the table of their states."""

from itertools import islice

import qt
from slicer.i18n import tr as _

from .. import installation
from ..batch import BatchRun, stateOf
from .section import Section, fillRow, pathReason, setProgress, setText, showRows

# Rows brought up to date in one tick: those of a large batch must not hold the window.
ROWS_PER_TICK = 300
ROWS_SEEN = 8


class BatchSection(Section):
    UI = "BatchPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self.batch = None
        self._shown = {}  # what the table's rows show, per case
        self.ui.batchInputFolderButton.clicked.connect(self.onInputFolder)
        self.ui.batchInputTableButton.clicked.connect(self.onInputTable)
        self.ui.batchOutputButton.clicked.connect(self.onOutput)
        self.ui.startBatchButton.clicked.connect(self.onStart)
        self.ui.stopBatchButton.clicked.connect(self.onStop)
        self.ui.batchTable.horizontalHeader().setStretchLastSection(True)
        self.ui.batchTable.verticalHeader().setVisible(False)
        showRows(self.ui.batchTable, ROWS_SEEN)
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
        reason = pathReason(self.parameters.batchInput, _("Choose the cases: a folder or a CSV file."))
        if reason:
            return reason
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
        self._shown = {}
        self.ui.batchTable.setRowCount(0)
        self.batch = BatchRun(
            model=self.model,
            source=self.parameters.batchInput,
            target=self.parameters.batchOutput,
            resume=self.parameters.batchResume,
            device=self.parameters.device,
        )
        setText(self.ui.batchStatus, _("The batch is starting ..."))
        if self.batch.failure:
            self._ended()
        self.panel.touch()

    def onStop(self, *_args):
        if self.running:
            self.batch.stop()
            setText(self.ui.batchStatus, _("Stopping ..."))

    def poll(self):
        batch = self.batch
        if batch is None:
            return False
        ending = batch.running
        batch.poll()
        filled = self._fill()
        if batch.running:
            setProgress(self.ui.batchProgress, batch.progress, "%p %")
            if batch.comment and not batch.cancelled:
                setText(self.ui.batchStatus, batch.comment)
        elif ending:
            self._ended()
        return batch.running or filled

    def _fill(self):
        """Brings some rows of the table up to date; answers whether there were any to do."""
        table, cases = self.ui.batchTable, enumerate(self.batch.cases.items())
        changed = ((row, case, entry) for row, (case, entry) in cases if self._shown.get(case) is not entry)
        part = list(islice(changed, ROWS_PER_TICK))
        if part:
            table.setRowCount(max(table.rowCount, part[-1][0] + 1))
            showRows(table, ROWS_SEEN)
        for row, case, entry in part:
            self._shown[case] = entry
            fillRow(table, row, [case, *stateOf(entry)])
        return bool(part)

    def _ended(self):
        batch = self.batch
        if batch.cancelled:
            told = _("Stopped; started with Resume it goes on with the next case.")
        elif batch.failure:
            told = batch.failure.sentence
        elif batch.exitCode == 1:
            told = _("Done; some cases failed, the table names them.")
        else:
            told = _("Done: {folder}").format(folder=batch.target)
        setText(self.ui.batchStatus, told)
        self.panel.showLog(batch.log)
        self.panel.touch()

    def close(self):
        if self.batch is not None:
            self.batch.close()
