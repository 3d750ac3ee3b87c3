"""A training in the background, its live curve, and its model in the list when it is done."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .. import installation
from ..background import BackgroundCommand
from ..training import METRICS_FILE, Curve, TrainingRun, readMetrics
from .section import Section, setProgress, setText


class TrainSection(Section):
    UI = "TrainPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self.training = None
        self._export = None
        self._metrics = None  # size and time of the file that the curve shows
        self.ui.trainDataButton.clicked.connect(self.onData)
        self.ui.trainConfigurationButton.clicked.connect(self.onConfiguration)
        self.ui.startTrainButton.clicked.connect(self.onStart)
        self.ui.stopTrainButton.clicked.connect(self.onStop)
        self.ui.showCurveButton.clicked.connect(self.onCurve)
        setText(self.ui.trainStatus, "")

    @property
    def running(self):
        return any(process is not None and process.running for process in (self.training, self._export))

    def reason(self):
        """Why a training cannot be started, or an empty sentence."""
        parameters = self.parameters
        if not parameters.trainData.strip() or not Path(parameters.trainData).exists():
            return _("Choose the folder of the data set.")
        if not Path(parameters.trainConfiguration).is_file():
            return _("Choose a configuration file.")
        if not parameters.trainRun.strip():
            return _("Give the run a name.")
        return ""

    def update(self):
        reason = self.reason()
        self.ui.startTrainButton.setEnabled(not reason and not self.running)
        self.ui.startTrainButton.setToolTip(
            reason or _("Start the run in the background, or resume it where it stopped.")
        )
        self.ui.stopTrainButton.setEnabled(self.running)
        self.ui.showCurveButton.setEnabled(bool(self.parameters.trainRun.strip()))
        self.ui.trainProgress.setVisible(self.running)
        if self.training is None:
            setText(self.ui.trainStatus, reason)

    def onData(self, *_args):
        path = qt.QFileDialog.getExistingDirectory(self.panel.parent, _("Folder of the data set"))
        if path:
            self.parameters.trainData = str(path)

    def onConfiguration(self, *_args):
        path = qt.QFileDialog.getOpenFileName(self.panel.parent, _("Configuration"), "", "*.yaml *.yml")
        if path:
            self.parameters.trainConfiguration = str(path)

    def onStart(self, *_args):
        needed = installation.missingForTraining()
        if needed and not self.panel.runSection.install(needed):
            return
        parameters = self.parameters
        self.training = TrainingRun(
            configuration=parameters.trainConfiguration, data=parameters.trainData, run=parameters.trainRun.strip()
        )
        self._metrics = None
        setText(self.ui.trainStatus, _("The run is starting ..."))
        self.panel.touch()

    def onStop(self, *_args):
        for process in (self.training, self._export):
            if process is not None and process.running:
                process.stop()
        setText(self.ui.trainStatus, _("Stopping ..."))

    def onCurve(self, *_args):
        curve = self._showCurve()
        plots = getattr(slicer.modules, "plots", None)
        if plots is not None:
            plots.logic().ShowChartInLayout(curve.chart)

    def poll(self):
        if self._export is not None:
            return self._pollExport()
        training = self.training
        if training is None or training.exitCode is not None or not (training.running or training.failure):
            return False
        said = training.poll()
        if said:
            setText(self.ui.trainStatus, said[-1][-200:])
        self._followCurve()
        if training.running:
            setProgress(self.ui.trainProgress, training.progress, "%p %" if training.progress is not None else "")
            return True
        self._ended()
        return True

    def _ended(self):
        training = self.training
        self.panel.showLog(training.log)
        if training.finished:
            setText(self.ui.trainStatus, _("Trained. Making a model of the run ..."))
            self._export = BackgroundCommand("export", "--run", training.run)
        elif training.cancelled:
            setText(self.ui.trainStatus, _("Stopped; 'Start or resume' goes on where it stopped."))
        elif training.failure:
            setText(self.ui.trainStatus, training.failure.sentence)
        self.panel.touch()

    def _pollExport(self):
        self._export.poll()
        if self._export.running:
            return True
        done, self._export = self._export, None
        if done.failure or done.exitCode != 0:
            setText(self.ui.trainStatus, done.failure.sentence if done.failure else "\n".join(done.log[-3:]))
        else:
            self.panel.refreshModels()
            setText(
                self.ui.trainStatus,
                _("Done: the model is in the list above. {said}").format(said=" ".join(done.log[-1:])),
            )
        self.panel.touch()
        return False

    def _followCurve(self):
        """The curve follows the file once it was asked for; the file's size and time tell whether there is more."""
        file = self.training.folder / METRICS_FILE
        try:
            state = (file.stat().st_mtime_ns, file.stat().st_size)
        except OSError:
            return
        if self._metrics not in (None, state):
            self._showCurve()
        self._metrics = state

    def _showCurve(self):
        from TeachFormerCore.paths import runs_folder

        curve = Curve()
        curve.fill(readMetrics(runs_folder() / self.parameters.trainRun.strip() / METRICS_FILE))
        return curve

    def close(self):
        for process in (self.training, self._export):
            if process is not None:
                process.close()
        self._export = None
