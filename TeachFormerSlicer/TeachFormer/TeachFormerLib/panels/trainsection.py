"""A training in the background, its live curve, and its model in the list when it is done."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .. import installation
from ..background import BackgroundCommand
from ..training import METRICS_FILE, Curve, TrainingRun, readMetrics
from .section import Section, pathReason, setProgress, setText


class TrainSection(Section):
    UI = "TrainPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self.training = None
        self._export = None
        self._metrics = None  # size and time of the file that the curve shows
        self._said = ""
        self.ui.trainDataButton.clicked.connect(self.onData)
        self.ui.trainConfigurationButton.clicked.connect(self.onConfiguration)
        self.ui.startTrainButton.clicked.connect(self.onStart)
        self.ui.stopTrainButton.clicked.connect(self.onStop)
        self.ui.showCurveButton.clicked.connect(self.onCurve)
        self.ui.installTrainWheelsButton.clicked.connect(self.onInstallWheels)
        setText(self.ui.trainStatus, "")

    @property
    def running(self):
        return any(process is not None and process.running for process in (self.training, self._export))

    def reason(self):
        """Why a training cannot be started, or an empty sentence."""
        parameters = self.parameters
        configuration = parameters.trainConfiguration
        reason = pathReason(parameters.trainData, _("Choose the folder of the data set."))
        reason = reason or pathReason(configuration, _("Choose a configuration file."))
        if not reason and Path(configuration).is_dir():
            return _("{path} is a folder: choose a configuration file.").format(path=configuration)
        if not reason and not parameters.trainRun.strip():
            return _("Give the run a name.")
        return reason

    def update(self):
        reason = self.reason()
        self.ui.startTrainButton.setEnabled(not reason and not self.running)
        self.ui.startTrainButton.setToolTip(
            reason or _("Start the run in the background, or resume it where it stopped.")
        )
        self.ui.stopTrainButton.setEnabled(self.running)
        self.ui.showCurveButton.setEnabled(bool(self.parameters.trainRun.strip()))
        self.ui.trainProgress.setVisible(self.running)
        self.ui.installTrainWheelsButton.setVisible(bool(installation.missingForTraining()))
        told = [self._said, "" if self.running else reason]
        setText(self.ui.trainStatus, " ".join(text for text in told if text))

    def onData(self, *_args):
        path = qt.QFileDialog.getExistingDirectory(self.panel.parent, _("Folder of the data set"))
        if path:
            self.parameters.trainData = str(path)

    def onConfiguration(self, *_args):
        path = qt.QFileDialog.getOpenFileName(self.panel.parent, _("Configuration"), "", "*.yaml *.yml")
        if path:
            self.parameters.trainConfiguration = str(path)

    def onInstallWheels(self, *_args):
        folder = qt.QFileDialog.getExistingDirectory(self.panel.parent, _("Folder of wheels"))
        if folder:
            self.panel.runSection.install(installation.missingForTraining(), self._say, folder)

    def onStart(self, *_args):
        needed = installation.missingForTraining()
        if needed and not self.panel.runSection.install(needed, self._say):
            return
        configuration = self.parameters.trainConfiguration
        try:
            self.training = TrainingRun(
                configuration=configuration, data=self.parameters.trainData, run=self.parameters.trainRun.strip()
            )
        except (OSError, UnicodeDecodeError) as error:
            self._say(
                _("{path} could not be read as text ({error}): choose another configuration.").format(
                    path=configuration, error=error
                )
            )
            return
        self._metrics = None
        self._say(_("The run is starting ..."))
        if self.training.failure:
            self._ended()
        self.panel.touch()

    def _say(self, text):
        """Puts a sentence into the status line of this section, where it stays until something else happens."""
        self._said = text
        setText(self.ui.trainStatus, text)

    def onStop(self, *_args):
        for process in (self.training, self._export):
            if process is not None and process.running:
                process.stop()
        self._say(_("Stopping ..."))

    def onCurve(self, *_args):
        from TeachFormerCore.paths import runs_folder

        curve = self._fillCurve(runs_folder() / self.parameters.trainRun.strip())
        plots = getattr(slicer.modules, "plots", None)
        if plots is not None:
            plots.logic().ShowChartInLayout(curve.chart)

    def poll(self):
        if self._export is not None:
            return self._pollExport()
        training = self.training
        if training is None or not training.running:
            return False
        said = training.poll()
        if said and not training.cancelled:
            self._say(said[-1][-200:])
        self._followCurve()
        if training.running:
            setProgress(self.ui.trainProgress, training.progress, "%p %" if training.progress is not None else "")
        else:
            self._ended()
        return True

    def _ended(self):
        training = self.training
        self.panel.showLog(training.log)
        if training.finished:
            self._say(_("Trained. Making a model of the run ..."))
            self._export = BackgroundCommand("export", "--run", training.run)
        elif training.cancelled:
            self._stopped()
        else:
            self._say(training.failure.sentence)
        self.panel.touch()

    def _stopped(self):
        self._say(_("Stopped; 'Start or resume' goes on where it stopped."))

    def _pollExport(self):
        self._export.poll()
        if self._export.running:
            return True
        done, self._export = self._export, None
        if done.cancelled:
            self._stopped()
        elif done.failure:
            self._say(done.failure.sentence)
            self.panel.showLog(done.log)
        else:
            self.panel.refreshModels()
            self._say(_("Done: the model is in the list above. {said}").format(said=" ".join(done.log[-1:])))
        self.panel.touch()
        return False

    def _followCurve(self):
        """The curve follows the file once it was asked for; the file's size and time tell whether there is more."""
        if self.parameters is None or not Curve.inScene():  # the first while a scene is closed
            return
        file = self.training.folder / METRICS_FILE
        try:
            state = (file.stat().st_mtime_ns, file.stat().st_size)
        except OSError:
            return
        if state != self._metrics:
            self._metrics = state
            self._fillCurve(self.training.folder)

    def _fillCurve(self, folder):
        curve = Curve()
        curve.fill(readMetrics(folder / METRICS_FILE))
        return curve

    def close(self):
        for process in (self.training, self._export):
            if process is not None:
                process.close()
        self._export = None
