"""Apply and Cancel, the device, what must be installed first, progress and the one status line."""

import json

import qt
import slicer.util
from slicer.i18n import tr as _

from .. import installation
from ..background import BackgroundCommand
from ..diagnostics import gigabytes
from ..run import CANCELLED, DONE
from .section import Section, duration, setProgress, setText

AUTOMATIC = "auto"


class RunSection(Section):
    UI = "RunPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self.run = None  # the last one, also when it has ended
        self._steps = None
        self._probe = None
        self._shown = None
        self.ui.deviceSelector.currentIndexChanged.connect(self.onDevice)
        self.ui.applyButton.clicked.connect(self.onApply)
        self.ui.cancelButton.clicked.connect(self.onCancel)
        self.ui.installButton.clicked.connect(self.onInstall)
        self.ui.installWheelsButton.clicked.connect(self.onInstallWheels)

    @property
    def busy(self):
        return self._steps is not None or (self.run is not None and self.run.running)

    @property
    def threaded(self):
        return self.run is not None and self.run.threaded

    # --- what computes

    def probe(self):
        """Asks in the background what computes here; torch is never imported into Slicer itself."""
        if self._probe is None:
            self._probe = BackgroundCommand("devices")
            self.panel.touch()

    def update(self):
        self._fillDevices()
        model = self.model
        needed = installation.missing(model) if model is not None and not model.fault else []
        setText(self.ui.installLabel, installation.sentence(needed) if needed else "")
        for button in (self.ui.installButton, self.ui.installWheelsButton):
            button.setVisible(bool(needed))
        ready, reason = self.logic.readiness(self.parameters, model)
        self.ui.applyButton.setEnabled(ready and not self.busy)
        self.ui.applyButton.setToolTip(reason or _("Compute the segmentation."))
        self.ui.cancelButton.setEnabled(self.run is not None and self.run.running)
        self.ui.progressBar.setVisible(self.busy)
        if not self.busy:
            self.panel.showStatus(reason)

    def _fillDevices(self):
        devices = self.panel.devices
        shown = (json.dumps(devices), self.parameters.device)
        if shown == self._shown:
            return
        self._shown = shown
        box = self.ui.deviceSelector
        entries = [(AUTOMATIC, _("Automatic"))]
        for device in (devices or {}).get("devices", ()):
            entries.append(
                (
                    device["id"],
                    _("{name}, {free} free").format(name=device["name"], free=gigabytes(device["free_bytes"])),
                )
            )
        if len(entries) > 1:
            entries[0] = (AUTOMATIC, _("Automatic ({name})").format(name=devices["devices"][0]["name"]))
        # The first look may not have come back yet, and the scene of another computer may name another device.
        if self.parameters.device not in dict(entries):
            entries.append(
                (self.parameters.device, _("{device} (not found here)").format(device=self.parameters.device))
            )
        blocked = box.blockSignals(True)
        box.clear()
        for identifier, text in entries:
            box.addItem(text, identifier)
        box.setCurrentIndex([identifier for identifier, _text in entries].index(self.parameters.device))
        box.blockSignals(blocked)

    def onDevice(self, *_args):
        index = self.ui.deviceSelector.currentIndex
        if index >= 0:
            self.parameters.device = self.ui.deviceSelector.itemData(index)

    # --- installation

    def onInstall(self, *_args):
        self._install(wheelFolder=None)

    def onInstallWheels(self, *_args):
        folder = qt.QFileDialog.getExistingDirectory(self.panel.parent, _("Folder of wheels"))
        if folder:
            self._install(wheelFolder=folder)

    def _install(self, wheelFolder):
        self.install(installation.missing(self.model), self.panel.say, wheelFolder)

    def install(self, needed, say, wheelFolder=None):
        """Asks, installs, says what happened, and looks anew what computes; answers whether all is there now."""
        question = installation.sentence(needed) + ". " + _("Install now? Slicer waits meanwhile.")
        if not slicer.util.confirmOkCancelDisplay(question):
            return False
        try:
            installation.install(needed, wheelFolder)
        except installation.InstallationError as error:
            say(str(error))
            return False
        finally:  # also where only a part has arrived
            self.probe()
            self.panel.touch()
        say(_("Installed."))
        return True

    # --- the run

    def onApply(self, *_args):
        if self.busy:
            return
        try:
            self.run = self.logic.startRun(self.parameters, self.model)
        except Exception as error:  # the reason belongs where the user looks, whatever it is
            self.panel.say(str(error))
            return
        self.panel.clearStatus()
        self.panel.touch()

    def onCancel(self, *_args):
        if self.run is not None and self.run.running:
            self.run.cancel()
            self.panel.touch()

    def poll(self):
        busy = self._pollProbe()
        if self.run is not None and self.run.running:
            self.run.poll()
            self._showProgress()
            if not self.run.running:
                self._ended()
            return True
        if self._steps is not None:
            self._show()
            return True
        return busy

    def _pollProbe(self):
        if self._probe is None:
            return False
        self._probe.poll()
        if self._probe.running:
            return True
        probe, self._probe = self._probe, None
        told = next((line for line in reversed(probe.log) if line.startswith("{")), None)
        if told:
            self.panel.devices = json.loads(told)
        else:  # the diagnostics say it; a run will tell more
            said = probe.failure.sentence if probe.failure else "; ".join(probe.log[-3:])
            self.panel.devices = {"versions": {}, "devices": [], "refused": [_("no answer") + f": {said}"]}
        self.panel.touch()
        return False

    def _showProgress(self):
        run = self.run
        left = run.secondsLeft
        text = run.comment + (_(", {time} left").format(time=duration(left)) if left is not None else " ...")
        setProgress(self.ui.progressBar, run.progress, "%p %")
        self.panel.showStatus(text)

    def _ended(self):
        run = self.run
        if run.state == DONE:
            self._steps = self.logic.showSteps(run, self.parameters)
        elif run.state == CANCELLED:
            self.panel.say(_("Cancelled; nothing was changed."))
        else:
            self.panel.say(run.failure.sentence)
        self.panel.showLog(run.log + ([run.failure.original] if run.failure else []))
        self.panel.touch()

    def _show(self):
        """One part of showing the results: the window is alive in between."""
        try:
            next(self._steps)
            return
        except StopIteration:
            self.panel.say(self.logic.summary(self.run))
            self.run.release()
        except Exception as error:  # a node that went away meanwhile, told instead of lost in the console
            self.panel.say(_("The result could not be shown ({error}).").format(error=error))
            self.panel.showLog([repr(error)])
        self._steps = None
        self.panel.touch()

    def leaveScene(self):
        if self.run is not None:
            self.run.abandon()
            self.run.release()
        self._steps = None

    def close(self):
        if self.run is not None:
            self.run.close()
        if self._probe is not None:
            self._probe.close()
            self._probe = None
