"""Processes beside the window, and the files they leave: how they end, what is told of it, how long it takes."""

import csv
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from stand_ins import core

core.install()

from TeachFormerLib import background, runner, sampledata, training  # noqa: E402
from TeachFormerLib.batch import BatchRun  # noqa: E402

BROKEN = "raise ValueError('the original words')"


def ended(command, seconds=30.0):
    """The command, once it has ended."""
    end = time.monotonic() + seconds
    while command.running:
        assert time.monotonic() < end
        command.poll()
    return command


def program(monkeypatch, code):
    """Every command is this Python code from now on."""
    monkeypatch.setattr(background, "launcher", lambda: [sys.executable, "-c", code])


@pytest.mark.skipif(sys.platform == "win32", reason="a taskkill of our own needs a shell")
def test_windows_ends_a_process_without_waiting_for_it(monkeypatch, tmp_path: Path) -> None:
    """With a taskkill of our own, as slow as that of a busy machine."""
    taskkill = tmp_path / "taskkill"
    taskkill.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\nsleep 2\n', encoding="utf-8")
    taskkill.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    process = runner.ProcessRunner([sys.executable, "-c", "import time; time.sleep(60)"])
    process.start()
    try:
        with monkeypatch.context() as windows:
            windows.setattr(runner, "os", SimpleNamespace(name="nt"))
            windows.setattr(subprocess, "CREATE_NO_WINDOW", 0, raising=False)
            start = time.perf_counter()
            process.cancel()
            assert time.perf_counter() - start < 1, "the taskkill was waited for"
        end = time.monotonic() + 10
        while not (tmp_path / "asked").exists() or not (tmp_path / "asked").read_text():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert (tmp_path / "asked").read_text() == f"/F /T /PID {process._process.pid}\n"
    finally:
        process._signal("SIGKILL")
        process.wait()


def test_only_a_batch_may_end_with_1(scene, monkeypatch, tmp_path: Path) -> None:
    program(monkeypatch, BROKEN)
    command = ended(background.BackgroundCommand("export"))
    assert command.failure.sentence == "The computation broke off (ValueError: the original words): see the log below."
    assert command.failure.exitCode == 1
    model = SimpleNamespace(folder=tmp_path)
    program(monkeypatch, "import sys; sys.exit(1)")
    batch = ended(BatchRun(model=model, source=str(tmp_path), target=str(tmp_path), resume=True, device="cpu"))
    assert (batch.exitCode, batch.failure) == (1, None)


def test_a_phantom_that_cannot_be_written_is_a_sentence_and_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    launch = core.MODULE / "TeachFormerLib" / "launch.py"
    words = [sys.executable, launch, core.MODULE.parents[1], "phantom", tmp_path / "file"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stdout.startswith("error: ")
    assert "could not be written (" in done.stdout
    assert "check that the disk is not full and that the folder is writable." in done.stdout
    assert done.stderr == ""


def test_sample_data_says_why_there_is_no_phantom(scene, monkeypatch) -> None:
    monkeypatch.setattr(scene, "app", SimpleNamespace(processEvents=lambda: None), raising=False)
    program(monkeypatch, BROKEN)
    with pytest.raises(RuntimeError, match="(?s)broke off .ValueError: the original words.*Traceback") as told:
        sampledata.loadPhantom()
    assert "took longer" not in str(told.value)
    program(monkeypatch, "import time; print('thinking', flush=True); time.sleep(60)")
    monkeypatch.setattr(sampledata, "PHANTOM_TIMEOUT_S", 3)
    with pytest.raises(RuntimeError, match="took longer than 3 s: close other programs and try again.\nthinking"):
        sampledata.loadPhantom()


def test_the_curve_of_a_long_run_does_not_hold_the_window(scene, tmp_path: Path) -> None:
    names = ["epoch", "step", "train_loss", *(f"train_{n}" for n in range(10)), "choice_dice"]
    with (tmp_path / training.METRICS_FILE).open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(names)
        rows.writerows([n, 10 * n, *[1 / (n + 1 / 3)] * 11, "" if n % 5 else 0.5] for n in range(1000))
    times = []
    for _poll in range(3):
        start = time.perf_counter()
        curve = training.Curve()
        curve.fill(training.readMetrics(tmp_path / training.METRICS_FILE))
        times.append(time.perf_counter() - start)
    assert curve.table.GetNumberOfRows() == 1000
    assert curve.chart.GetNumberOfPlotSeriesNodes() == 2
    assert min(times) < 0.1
