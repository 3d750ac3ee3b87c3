"""What the panel does in the background beside a run: a batch, a training, an import, and the end of a scene meanwhile.

With stand-ins for the program, since only what it writes and how it ends matters here.
"""

import json
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

from stand_ins import gui
from stand_ins.gui import until

# Nothing but a kill ends it.
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('<filter-comment>deaf</filter-comment>', flush=True); time.sleep(60)"
)
# A fault that nobody foresaw.
BROKEN = "raise ValueError('the original words')"


def program(monkeypatch, code):
    """Every command is this Python code from now on."""
    from TeachFormerLib import background

    monkeypatch.setattr(background, "launcher", lambda: [sys.executable, "-c", code])


def prepared(panel, folder):
    """A panel whose training and batch can be started: all it asks for lies in a folder."""
    configuration = folder / "c.yaml"
    configuration.write_text("network: x\n", encoding="utf-8")
    for field, value in (
        ("trainData", folder), ("trainConfiguration", configuration), ("trainRun", "my run"),
        ("batchInput", folder), ("batchOutput", folder),
    ):  # fmt: skip
        setattr(panel.parameters, field, str(value))
    panel.tick()
    assert panel.ui.startTrainButton.enabled
    assert panel.ui.startBatchButton.enabled


def test_the_batch_table_follows_the_state_file(panel, tmp_path: Path, monkeypatch) -> None:
    output, go = tmp_path / "results", tmp_path / "go"
    output.mkdir()
    (tmp_path / "cases").mkdir()
    code = f"""
import json, pathlib, sys, time
assert sys.argv[1] == "cases" and json.loads(sys.argv[2])["resume"] is True, sys.argv
with open({str(output / "state.jsonl")!r}, "a") as stream:
    stream.write('{{"batch": {{}}}}\\n')
    for case, state in (("a", "failed"), ("a", "done"), ("b", "failed")):
        error = {{"cause": "no PET", "fix": ""}} if case == "b" else None
        stream.write(json.dumps({{"case": case, "state": state, "seconds": 2.0, "error": error}}) + "\\n")
        stream.write('{{"case": "half') if case == "b" else stream.flush()
print("<filter-progress>0.5</filter-progress>", flush=True)
print("<filter-comment>a &amp; b: done, 2 of 3</filter-comment>", flush=True)
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.01)
sys.exit(1)
"""
    program(monkeypatch, code)
    ui = panel.ui
    panel.tick()
    assert not ui.startBatchButton.enabled
    assert ui.batchStatus.text == "Choose the cases: a folder or a CSV file."
    for field, path in (("batchInput", tmp_path / "cases"), ("batchOutput", output)):
        gui.ANSWERS["file"] = str(path)
        getattr(ui, f"{field}{'Folder' if field == 'batchInput' else ''}Button").click()
        assert getattr(panel.parameters, field) == str(path)
    panel.tick()
    assert ui.startBatchButton.enabled
    ui.startBatchButton.click()
    batch = panel.sections[4]
    until(panel, lambda: ui.batchStatus.text == "a & b: done, 2 of 3")
    go.touch()
    until(panel, lambda: not batch.running)
    rows = [[ui.batchTable.item(r, c).text() for c in range(3)] for r in range(ui.batchTable.rowCount)]
    assert rows == [["a", "done", "2.0 s"], ["b", "failed", "no PET"]]
    assert ui.batchStatus.text == "Done; some cases failed, the table names them."


def test_a_training_is_followed_exported_and_listed(panel, tmp_path: Path, monkeypatch, tiny_model: Path) -> None:
    """Metrics while it runs, then the export that makes the model appear."""
    import os
    import shutil

    run = Path(os.environ["TEACHFORMER_RUNS"]) / "my run"
    models = Path(os.environ["TEACHFORMER_MODELS"])
    configuration = tmp_path / "taught.yaml"
    configuration.write_text("network: x\nteachers:\n  - run: t\n", encoding="utf-8")
    code = f"""
import pathlib, shutil, sys, time
if sys.argv[1] == "export":
    shutil.copytree({str(tiny_model)!r}, {str(models / "mine")!r})
    print("Exported to mine.")
    sys.exit()
assert sys.argv[1] == "distill", sys.argv
run = pathlib.Path({str(run)!r})
run.mkdir(parents=True)
for rows in (1, 2):
    lines = [f"{{e}},{{10 * e}},{{1 / (e + 1)}}," for e in range(rows)]
    text = "\\n".join(["epoch,step,train_loss,choice_dice", *lines, ""])
    (run / "metrics.csv").write_text(text)
    print("training: 1 of 2", flush=True)
    time.sleep(0.4)
"""
    program(monkeypatch, code)
    ui, parameters = panel.ui, panel.parameters
    panel.tick()
    assert ui.trainStatus.text == "Choose the folder of the data set."
    prepared(panel, tmp_path)
    parameters.trainConfiguration = str(configuration)
    panel.tick()
    shutil.rmtree(models / "tiny")
    ui.startTrainButton.click()
    training = panel.sections[5]
    until(panel, lambda: training.running and (run / "metrics.csv").exists())
    ui.showCurveButton.click()
    until(panel, lambda: not training.running)
    import slicer

    table = next(n for n in slicer.util.getNodesByClass("vtkMRMLTableNode") if n.GetAttribute("TeachFormer.curve"))
    assert table.GetNumberOfRows() == 2
    series = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    assert [(each.GetXColumnName(), each.GetYColumnName()) for each in series] == [("step", "train_loss")]
    assert ui.trainStatus.text.startswith("Done: the model is in the list above.")
    assert "mine" in [model.folder.name for model in panel.models]


def test_a_scene_is_closed_at_once_and_a_batch_and_a_training_go_on(
    panel, loaded, scene, monkeypatch, tmp_path
) -> None:
    """However long a run takes to end: what is left of it goes by itself."""
    from TeachFormerLib import run

    go, ui = tmp_path / "go", panel.ui
    program(
        monkeypatch,
        f"""
import pathlib, time
print("<filter-comment>at work</filter-comment>", "at work", sep="\\n", flush=True)
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.01)
""",
    )
    monkeypatch.setattr(run, "launcher", lambda: [sys.executable, "-c", DEAF])
    prepared(panel, tmp_path)
    for button in (ui.startTrainButton, ui.startBatchButton, ui.applyButton):
        button.click()
    case = panel.runSection.run
    until(panel, lambda: (case.comment, ui.batchStatus.text, ui.trainStatus.text) == ("deaf", "at work", "at work"))
    start, work = time.perf_counter(), time.thread_time()
    scene.mrmlScene.InvokeEvent(scene.mrmlScene.StartCloseEvent)
    assert time.thread_time() - work < 0.1
    assert time.perf_counter() - start < 0.9, "a process was waited for, which is deaf for a second"
    scene.mrmlScene.Clear(0)
    assert not panel.busy
    assert case._runner._process.wait(timeout=3) is not None
    assert panel.parameters.trainRun == "", "it is another scene's"
    panel.tick()
    assert (ui.stopBatchButton.enabled, ui.stopTrainButton.enabled) == (True, True)
    panel.setParameters(None)  # also where the module is not shown, what goes on is followed
    go.touch()
    until(panel, lambda: ui.trainStatus.text.startswith("Done: "))
    assert ui.batchStatus.text == f"Done: {tmp_path}"
    end = time.monotonic() + 3
    while case._folder.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not case._folder.exists()


def test_a_large_batch_fills_its_table_a_part_at_a_time(panel, monkeypatch, tmp_path) -> None:
    entries = [{"case": f"case {n}", "state": "failed", "error": {"cause": "x" * 200}} for n in range(3500)]
    lines = [json.dumps(entry) for entry in [*entries, {"case": "case 7", "state": "done", "seconds": 1.0}]]
    (tmp_path / "state.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    program(monkeypatch, "")
    prepared(panel, tmp_path)
    table = panel.ui.batchTable
    panel.ui.startBatchButton.click()

    def filled():
        return table.rowCount == 3500 and table.item(3499, 0) and table.item(7, 1).text() == "done"

    assert until(panel, filled, clock=time.thread_time) < 0.1
    assert table.item(3499, 0).text() == "case 3499"
    assert table.item(7, 2).text() == "1.0 s"
    assert not panel.sections[4].poll(), "nothing is left to do"


def test_what_a_training_lacks_is_named(panel, monkeypatch, tmp_path) -> None:
    ui, parameters = panel.ui, panel.parameters
    prepared(panel, tmp_path)
    for field, path in (("trainData", tmp_path / "absent"), ("trainConfiguration", tmp_path / "absent.yaml")):
        kept = getattr(parameters, field)
        setattr(parameters, field, str(path))
        panel.tick()
        assert (ui.startTrainButton.enabled, ui.trainStatus.text) == (False, f"{path} does not exist.")
        setattr(parameters, field, "a" * 5000)  # longer than any file system takes
        panel.tick()
        assert ui.trainStatus.text.endswith("does not exist.")
        setattr(parameters, field, kept)
    parameters.trainConfiguration = str(tmp_path)
    panel.tick()
    assert ui.trainStatus.text == f"{tmp_path} is a folder: choose a configuration file."
    parameters.trainConfiguration = str(tmp_path / "picture.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xfe\x00")
    panel.tick()
    ui.startTrainButton.click()
    panel.tick()
    assert ui.trainStatus.text.startswith(f"{tmp_path / 'picture.yaml'} could not be read as text ('utf-8' codec can't")
    assert ui.trainStatus.text.endswith("choose another configuration.")
    assert ui.startTrainButton.enabled


def test_what_training_needs_comes_from_a_folder_of_wheels(panel, monkeypatch, tmp_path) -> None:
    from TeachFormerLib import installation

    asked, arrived = [], []

    class Absent(installation.Package):
        @property
        def installed(self):
            return bool(arrived)

    def pip(words):
        asked.append(words)
        if len(asked) == 1:
            raise OSError("no such wheel")
        arrived.append(1)

    lightning = Absent("pytorch-lightning>=2", "x", "PyTorch Lightning, about 5 MB")
    monkeypatch.setattr(installation, "TRAINING", (lightning,))
    monkeypatch.setattr(sys.modules["slicer"].util, "pip_install", pip, raising=False)
    ui = panel.ui
    prepared(panel, tmp_path)
    panel.touch()
    panel.tick()
    assert ui.installTrainWheelsButton.isVisibleTo(ui.TrainPanel)
    gui.ANSWERS["file"] = "/wheels"
    ui.installTrainWheelsButton.click()
    panel.tick()
    assert asked[0][:4] == ["pytorch-lightning>=2", "--no-index", "--find-links", "/wheels"]
    assert "about 5 MB" in gui.ASKED[-1]
    assert "could not be installed (no such wheel)" in ui.trainStatus.text
    assert "no such wheel" not in ui.statusLabel.text
    ui.installTrainWheelsButton.click()
    panel.tick()
    assert ui.trainStatus.text == "Installed."
    assert not ui.installTrainWheelsButton.isVisibleTo(ui.TrainPanel)
    panel.runSection.close()  # the look at the devices that an installation starts


def test_a_command_that_broke_off_is_told_in_its_own_words(panel, monkeypatch, tmp_path) -> None:
    """Exit code 1 is a fault, but for a batch."""
    ui, told = panel.ui, "The computation broke off (ValueError: the original words): see the log below."
    prepared(panel, tmp_path)
    program(monkeypatch, BROKEN)
    ui.startTrainButton.click()
    until(panel, lambda: ui.trainStatus.text == told)
    assert "Traceback" in ui.logText.toPlainText()
    ui.logText.setPlainText("")
    program(monkeypatch, f"import sys\nif sys.argv[1] == 'export': {BROKEN}")
    ui.startTrainButton.click()
    until(panel, lambda: ui.trainStatus.text == told)
    assert "Traceback" in ui.logText.toPlainText()
    program(monkeypatch, BROKEN)
    panel.modelSection.importFrom(str(tmp_path))
    until(panel, lambda: told in ui.statusLabel.text)


def test_a_program_that_cannot_be_started_is_told_once(panel, monkeypatch, tmp_path) -> None:
    from TeachFormerLib import background

    prepared(panel, tmp_path)
    monkeypatch.setattr(background, "launcher", lambda: [str(tmp_path / "absent")])
    for button, status in ((panel.ui.startTrainButton, "trainStatus"), (panel.ui.startBatchButton, "batchStatus")):
        button.click()
        assert getattr(panel.ui, status).text.startswith("The process could not be started (")
        assert "FileNotFoundError" in panel.ui.logText.toPlainText()
        panel.tick()
        panel.tick()
        assert not panel._ticking, "nothing is waited for"
