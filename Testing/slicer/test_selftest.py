"""The checks that run in a launched Slicer, tried here behind stand-ins, so that they fail there for good reasons only.

Those that need the application itself (scene bundles, Sample Data) are left to Slicer.
"""

import subprocess
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

from stand_ins import core, gui

QUICK = ("boxIsNeeded", "resultBecomesNodes", "overlayIsShown", "surfaceIsShown")
FULL = (
    "panelLoads",
    "channelsAreFilled",
    "applyWorks",
    "windowStaysAlive",
    "cancelWorks",
    "runsTwice",
    "closingEndsTheRun",
    "cliModuleSegments",
    "cliModuleSegmentsABatch",
    "workerSegments",
)
IN_SLICER = ("sampleDataIsRegistered", "sceneComesBack")


@pytest.fixture
def selftest(scene, monkeypatch, tmp_path: Path):
    """The module ``selftest`` with a panel to ask, and the calls of the application that it makes."""
    import SimpleITK as sitk
    from test_logic import exported

    gui.install()
    widget = gui.module_class("TeachFormerWidget")()
    widget.setup()
    load = lambda path, properties: core.volume_from(sitk.ReadImage(path), properties["name"])  # noqa: E731
    as_label = lambda node, _identifier, reference: exported(scene, node, reference)  # noqa: E731
    for name, stand_in in (
        ("mainWindow", lambda: None),
        ("getModuleWidget", lambda _name: widget),
        ("loadVolume", load),
        ("loadSegmentation", lambda path: load_segmentation(scene, path)),
        ("arrayFromSegmentBinaryLabelmap", as_label),
    ):
        monkeypatch.setattr(scene.util, name, stand_in, raising=False)
    scene.modules.colors = types.SimpleNamespace(logic=lambda: scene.vtkSlicerColorLogic)
    scene.modules.teachformercli = object()
    run_sync = lambda _module, _node, values: run_cli(scene, tmp_path, values)  # noqa: E731
    monkeypatch.setattr(scene, "cli", types.SimpleNamespace(runSync=run_sync), raising=False)
    from TeachFormerLib import selftest

    yield selftest
    widget.cleanup()


def load_segmentation(slicer, path):
    storage, node = (
        slicer.vtkMRMLSegmentationStorageNode(),
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"),
    )
    storage.SetFileName(path)
    return node if storage.ReadData(node) else None


def run_cli(slicer, folder, values):
    """The CLI module as Slicer runs it: volumes go through files, every output is read back after an exit code 0."""
    from test_cli_description import SCRIPT, argv, parameters

    files, outputs = {}, []
    for each in parameters():
        node = slicer.mrmlScene.GetNodeByID(values.get(each.findtext("name"), ""))
        if node is None:
            continue
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(str(folder / f"{node.GetID()}.nrrd"))
        files[each.findtext("name")] = storage.GetFileName()
        if each.findtext("channel") == "output":
            outputs.append((storage, node))
        else:
            assert storage.WriteData(node)
    done = subprocess.run([sys.executable, SCRIPT, *argv({**values, **files})], capture_output=True, encoding="utf-8")
    read = done.returncode == 0 and all(storage.ReadData(node) for storage, node in outputs)
    return types.SimpleNamespace(
        ErrorsMask=1,
        GetStatus=lambda: int(not read),
        GetErrorText=lambda: done.stderr,
        GetOutputText=lambda: done.stdout,
    )


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.full) for name in FULL)])
def test_a_check_passes(name: str, selftest) -> None:
    {check.__name__: check for _title, check in selftest.checks()}[name]()


def test_every_check_is_tried_here_or_left_to_slicer(selftest) -> None:
    assert {check.__name__ for _title, check in selftest.checks()} == {*QUICK, *FULL, *IN_SLICER}
    titles = [title for title, _check in selftest.checks()]
    assert len(set(titles)) == len(titles)


def test_the_modules_own_test_makes_every_check_and_names_those_that_failed(scene, monkeypatch) -> None:
    test = gui.module_class("TeachFormerTest")()
    from TeachFormerLib import selftest

    made = []

    def lacks():
        made.append("lacks")
        raise selftest.NotInstalled("PyTorch, about 200 MB")

    def fails():
        made.append("fails")
        raise AssertionError("expected: a reason")

    checks = [("first", lacks), ("second", lambda: made.append("passes")), ("third", fails)]
    monkeypatch.setattr(selftest, "checks", lambda: checks)
    with pytest.raises(AssertionError) as error:
        test.runTest()
    assert made == ["lacks", "passes", "fails"]
    assert str(error.value).splitlines() == [
        "2 of 3 checks failed:",
        "first: NotInstalled: PyTorch, about 200 MB",
        "third: AssertionError: expected: a reason",
    ]
    del checks[2], checks[0]
    test.runTest()


@pytest.fixture
def in_slicer(scene, monkeypatch):
    """The script as a module, in a Slicer without a window."""
    import importlib.util

    gui.install()
    spec = importlib.util.spec_from_file_location("in_slicer", Path(__file__).with_name("in_slicer.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(scene.util, "mainWindow", lambda: None, raising=False)
    monkeypatch.setattr(module.faulthandler, "enable", lambda **_: None)
    yield module
    if module._report is not None:
        module._report.close()


def test_in_slicer_counts_and_tells(in_slicer, monkeypatch, capsys, tmp_path: Path) -> None:
    """With three checks of its own: one passes, one fails, one ends the interpreter; none takes the others with it."""

    def fails():
        raise AssertionError("expected: a reason")

    checks = [("good", lambda: None), ("bad", fails), ("worse", lambda: sys.exit(3))]
    monkeypatch.setattr(in_slicer, "load_modules", lambda: checks)
    assert in_slicer.main(["--output", str(tmp_path / "pictures")]) == 2
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "3 passed, 2 failed"
    assert "FAILED: bad" in said
    assert "AssertionError: expected: a reason" in said
    assert 'raise AssertionError("expected: a reason")' in said
    assert "FAILED: worse" in said
    assert (tmp_path / "pictures" / "report.txt").read_text(encoding="utf-8") == said


def test_in_slicer_ends_with_counts_also_where_nothing_loads(in_slicer, monkeypatch, capsys, tmp_path, scene) -> None:
    codes = []

    def cannot():
        raise ImportError("no module named so")

    monkeypatch.setattr(scene.util, "exit", codes.append, raising=False)
    monkeypatch.setattr(in_slicer, "load_modules", cannot)
    in_slicer.run(["--output", str(tmp_path)])
    said = capsys.readouterr().out
    assert "ImportError: no module named so" in said
    assert said.splitlines()[-1] == "1 passed, 1 failed"
    monkeypatch.setattr(in_slicer, "main", cannot)
    in_slicer.run([])
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed"
    assert codes == [1, 1]


def test_in_slicer_without_a_runtime_says_so_and_fails_what_computes(
    in_slicer, selftest, monkeypatch, capsys, tmp_path: Path
) -> None:
    from TeachFormerLib import installation

    monkeypatch.setattr(installation, "TORCH", installation.Package("torch", "absent_torch", "PyTorch, about 200 MB"))
    monkeypatch.setattr(installation, "light", lambda model: None)
    checks = [("shows", selftest.resultBecomesNodes), ("computes", selftest.applyWorks)]
    monkeypatch.setattr(in_slicer, "load_modules", lambda: checks)
    assert in_slicer.main(["--output", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "2 passed, 2 failed"
    assert "InstallationError: PyTorch is installed by the extension 'PyTorch', which is missing" in said
    assert "passed: shows" in said
    assert "NotInstalled: To compute, TeachFormer needs: PyTorch, about 200 MB" in said
