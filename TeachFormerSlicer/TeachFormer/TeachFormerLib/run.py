"""One segmentation from nodes to arrays, in parts that never hold the window: write, compute, read.

Files are written and read by threads with NumPy alone, the computation is a process. All of it lives in a temporary
folder that goes with the run, so a cancelled run leaves nothing.
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import slicer.util
from slicer.i18n import tr as _

from . import geometry, nrrd, results
from .core import find_core
from .failure import Failure
from .runner import ProcessRunner, parse
from .task import TIDY_S, Task, tidied

MAPS = ("attention_fine", "attention_coarse", "attention_gradcam", "uncertainty")
WRITING, COMPUTING, READING, DONE, FAILED, CANCELLED = "writing", "computing", "reading", "done", "failed", "cancelled"
ENDS = (DONE, FAILED, CANCELLED)
# Before this part is done the worker has only read files: no estimate of what is left can be made from it.
ESTIMATED_FROM = 0.15


class SegmentationRun:
    """One case on its way; `poll` it until ``state`` is one of `ENDS`.

    Args:
        model: a `models.Model`.
        volumes: volume node per channel name; the first one of the model's channels is the reference.
        options: ``region`` (six numbers or None), ``device``, ``runtime``, ``pet_units``, ``suv_factor``, and
            ``dicom``: channel name -> files of the DICOM series to take in place of the node's voxels.
        maps: which of `MAPS` are wanted.

    Attributes:
        arrays: by name (``label`` and maps), ``(z, y, x)`` on the reference's grid, once done.
        images: the same voxels as ``vtkImageData``, by name.
        segments: what `results.segmentImages` makes of the label.
        statistics: content of ``statistics.json``, once done.
        result: content of the worker's result file, once done.
        notices: sentences for the user.
        failure: what went wrong, once failed.
        log: all lines of the worker.
    """

    def __init__(self, model, volumes, options, maps=MAPS):
        self.model = model
        self.state = WRITING
        self.comment = _("Handing the images over")
        self.progress = 0.0
        self.arrays, self.images, self.segments = {}, {}, []
        self.statistics, self.result = None, {}
        self.notices, self.log, self.failure = [], [], None
        self.seconds = 0.0
        self._started = time.monotonic()
        self._options = dict(options)
        self._maps = tuple(maps)
        self._runner = self._tidying = None
        # Everything of the nodes is taken up here, in the main thread: arrays are views, matrices are copies.
        self._images = [
            (name, slicer.util.arrayFromVolume(node), geometry.LPS_FROM_RAS @ geometry.ijkToWorld(node))
            for name, node in volumes.items()
        ]
        reference = next(iter(volumes.values()))
        self.referenceId = reference.GetID()
        self.ijkToWorld = geometry.ijkToWorld(reference)
        self.shape = self._images[0][1].shape
        self._folder = Path(tempfile.mkdtemp(prefix="TeachFormer-"))
        self._task = self._begin(self._write)

    @property
    def running(self):
        return self.state not in ENDS

    @property
    def threaded(self):
        """Whether a thread is at work."""
        return self.state in (WRITING, READING) or (self._tidying is not None and self._tidying.running)

    @property
    def secondsLeft(self):
        """An estimate, or None as long as there is none."""
        if self.state != COMPUTING or self.progress < ESTIMATED_FROM:
            return None
        return (time.monotonic() - self._started) * (1 - self.progress) / self.progress

    def poll(self):
        """Takes up what has happened; returns at once."""
        if self.state in (WRITING, READING) and not self._task.running:
            self._next()
        elif self.state == COMPUTING:
            self._take_up(self._runner.poll())
            if self._runner.returncode is not None:
                self._computed()

    def cancel(self):
        """Ends the run; the state follows within 2 s."""
        if self.state == COMPUTING:
            self._runner.cancel()
            self.comment = _("Cancelling")
        elif self.running:
            self._end(CANCELLED)

    def abandon(self):
        """Ends the run here and now; what is left of its process and folder goes by itself within 2 s."""
        if self._runner:
            self._runner.cancel()
        if self.running:
            self._end(CANCELLED)

    def close(self):
        """Ends the run and waits until nothing is left of it, for when the module goes."""
        self.abandon()
        self._tidying.wait(TIDY_S)

    def release(self):
        """Lets go of the voxels, which the nodes have now."""
        self.arrays, self.images, self.segments = {}, {}, []

    def _next(self):
        if self._task.failure:
            self._fail(self._task.failure)
        elif self.state == WRITING:
            self._runner = ProcessRunner([*launcher(), "job", self._folder / "job.json"])
            try:
                self._runner.start()
            except OSError as error:
                self._fail(Failure.of(error, _("The computation could not be started")))
                return
            self.state = COMPUTING
        else:
            self._end(DONE)

    def _computed(self):
        code = self._runner.returncode
        if self._runner.cancelled:
            self._end(CANCELLED)
        elif code == 0:
            self.state, self.comment = READING, _("Taking the results up")
            self._task = self._begin(self._read)
        else:
            self._fail(Failure.read(self._folder / "error.json", code, self.log))

    def _take_up(self, lines):
        for line in lines:
            tag, text = parse(line)
            if tag == "filter-progress":
                self.progress = float(text)
            elif tag == "filter-comment":
                self.comment = text
            if not tag:
                self.log.append(text)
                if text.startswith("note: "):
                    self.notices.append(text[len("note: ") :])

    def _begin(self, work):
        return Task(work, _("Files could not be exchanged with the computation"))

    def _write(self):
        inputs = []
        for name, array, matrix in self._images:
            files = self._options.get("dicom", {}).get(name)
            if files:
                path = self._folder / f"dicom-{name}"
                path.mkdir()
                for number, file in enumerate(files):
                    shutil.copyfile(file, path / f"{number:05d}.dcm")
            else:
                path = self._folder / f"{name}.nrrd"
                nrrd.write_nrrd(path, array, matrix)
            inputs.append(f"{name}={path}")
        self._images = []
        region = self._options.get("region")
        job = {
            "inputs": inputs,
            "model": str(self.model.folder),
            "region_ras": ",".join(f"{number:.6f}" for number in region) if region else None,
            "pet_units": self._options.get("pet_units", "suv"),
            "suv_factor": self._options.get("suv_factor"),
            "device": self._options.get("device", "auto"),
            "runtime": self._options.get("runtime", "auto"),
            "outputs": {
                "label": str(self._folder / "label.nrrd"),
                "statistics": str(self._folder / "statistics.json"),
                **{name: str(self._folder / f"{name}-map.nrrd") for name in self._maps},
            },
            "result_file": str(self._folder / "result.json"),
            "error_file": str(self._folder / "error.json"),
        }
        (self._folder / "job.json").write_text(json.dumps(job), encoding="utf-8")

    def _read(self):
        for name, file in [("label", "label.nrrd"), *((name, f"{name}-map.nrrd") for name in self._maps)]:
            if (self._folder / file).exists():
                # Into VTK's memory, so that the window only has to hand the image to its node.
                array = nrrd.read_nrrd(self._folder / file, make=lambda *kind, name=name: self._allocated(name, *kind))
                if array.shape != self.shape:
                    raise ValueError(f"{file} has {array.shape} voxels, the reference {self.shape}")
        self.segments = results.segmentImages(self.arrays["label"], self.ijkToWorld, self.model.card["labels"])
        self.statistics = json.loads((self._folder / "statistics.json").read_text(encoding="utf-8"))
        self.result = json.loads((self._folder / "result.json").read_text(encoding="utf-8"))

    def _allocated(self, name, shape, dtype):
        self.images[name], self.arrays[name] = results.newImage(shape, dtype)
        return self.arrays[name]

    def _fail(self, failure):
        self.failure = failure
        self._end(FAILED)

    def _end(self, state):
        self.state = state
        self.seconds = time.monotonic() - self._started
        self._images = []
        self._tidying = tidied(self._folder, self._task, self._runner)


def launcher():
    """The words that start a process of the core: interpreter (in Slicer, PythonSlicer), script, folder of the core."""
    folder = find_core()
    if folder is None:
        raise FileNotFoundError(_("TeachFormerCore was not found beside this module: install the extension again."))
    return [sys.executable, Path(__file__).with_name("launch.py"), folder]
