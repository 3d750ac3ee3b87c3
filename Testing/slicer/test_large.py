"""Whatever the window's thread does with a result of 512 x 512 x 300 voxels, a part at a time, and how long each takes.

The numbers of ``pytest -s``; the test itself asks for half of them only, since a part may wait for a busy machine.
"""

import json
import statistics
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from stand_ins import core

core.install()

from TeachFormerLib import nrrd, results, surface  # noqa: E402
from TeachFormerLib.logic import Logic  # noqa: E402
from TeachFormerLib.parameters import Overlay  # noqa: E402
from TeachFormerLib.run import SegmentationRun  # noqa: E402

pytestmark = pytest.mark.full
SHAPE = (300, 512, 512)
ROUNDS = 3
LONGEST_S = 0.1
MAPS = ("attention_fine", "uncertainty")


@pytest.fixture
def large(scene, tiny, tmp_path):
    """A reference of that size and a finished run's files, with a tumour of 12 cm: 900 cm3."""
    z, y, x = np.indices(SHAPE, dtype=np.float32, sparse=True)
    distance = np.sqrt((x - 256) ** 2 + (y - 256) ** 2 + (z - 150) ** 2)
    nrrd.write_nrrd(tmp_path / "label.nrrd", (distance < 60).astype(np.uint8), np.eye(4))
    for name in MAPS:
        nrrd.write_nrrd(tmp_path / f"{name}-map.nrrd", np.exp(-((distance / 80) ** 2)), np.eye(4))
    figures = {"name": "GTV", "volume_ml": 1.0, "components": 1, "mean_uncertainty": 0.1, "pet": None, "voxels": 9}
    told = {"labels": [{**figures, "channels": {"CT": {"mean": 1.0, "sd": 1.0}}}]}
    (tmp_path / "statistics.json").write_text(json.dumps(told))
    (tmp_path / "result.json").write_text("{}")
    reference = scene.util.addVolumeFromArray(np.zeros(SHAPE, np.int16), name="CT")
    return reference, tmp_path


def read(reference, folder, model):
    """What the thread of a run does once the worker has ended."""
    run = SegmentationRun.__new__(SegmentationRun)
    run.arrays, run.images, run.model, run.shape = {}, {}, model, SHAPE
    run.ijkToWorld, run._folder, run._maps, run.referenceId = np.eye(4), folder, MAPS, reference.GetID()
    run._read()
    return run


def test_no_step_of_showing_holds_the_window(scene, tiny, large) -> None:
    reference, folder = large
    parameters, logic = core.parameters(), Logic()
    parameters.channel1, parameters.overlay = reference, Overlay.ATTENTION_FINE
    times = {}

    def timed(name, work):
        start = time.perf_counter()
        done = work()
        times.setdefault(name, []).append(time.perf_counter() - start)
        return done

    for round_number in range(ROUNDS):
        run = read(reference, folder, tiny)
        steps, number, ended = logic.showSteps(run, parameters), 0, object()
        while timed(f"result, part {number}", partial(next, steps, ended)) is not ended:
            number += 1
        timed("letting go of the run", run.release)
        for overlay in (Overlay.UNCERTAINTY, Overlay.NONE, Overlay.ATTENTION_FINE):
            parameters.overlay = overlay
            timed(f"overlay {overlay.value}", lambda: logic.updateOverlay(parameters))
        timed("readiness", lambda: logic.readiness(parameters, tiny))
        timed("channels", lambda: logic.fillChannels(parameters, tiny))
        timed("models", logic.models)
        surfaces = timed("surface begun", lambda: surface.SurfaceRun(parameters.segmentation))
        while surfaces.running:
            timed("surface", surfaces.poll)
            time.sleep(0.01)
        assert surfaces.failure is None
        assert surface.lacking(parameters.segmentation) == []
        parameters.segmentation.GetDisplayNode().SetVisibility3D(bool(round_number % 2))
    times["surface"] = sorted(times["surface"])[-ROUNDS:]
    for name, seconds in times.items():
        print(f"{name:24s} {1000 * statistics.median(seconds):7.1f} ms, at most {1000 * max(seconds):7.1f} ms")
    slow = {name: seconds for name, seconds in times.items() if min(seconds) >= LONGEST_S}
    assert not slow


def test_what_is_read_is_what_was_written(scene, tiny, large) -> None:
    reference, folder = large
    run = read(reference, folder, tiny)
    node = scene.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    results.fillVolume(node, run.images["uncertainty"], np.eye(4))
    run.release()
    shown = scene.util.arrayFromVolume(node)
    assert shown[150, 256, 256] == 1.0
    assert shown[150, 256, 336] == pytest.approx(np.exp(-1), rel=1e-5)
    assert SimpleNamespace(shape=shown.shape, dtype=shown.dtype) == SimpleNamespace(shape=SHAPE, dtype=np.float32)
