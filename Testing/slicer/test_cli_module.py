"""The CLI module as Slicer runs it: a process with flags, progress on stdout, silence on stderr, an exit code."""

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import types
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.commands import main
from TeachFormerCore.data.phantom import thigh_phantom
from TeachFormerCore.errors import InputError, MissingDependencyError, TeachFormerError
from TeachFormerCore.inference.worker import explain, name_channels

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "TeachFormerSlicer" / "TeachFormerCLI" / "TeachFormerCLI.py"
FLAGS = ("model", "device", "runtime", "ct", "pet", "mr", "channel4", "region", "attentionFine", "attentionCoarse",
         "attentionGradCAM", "uncertainty", "statistics", "batchInput", "batchOutput")  # fmt: skip
SWITCHES = ("resume",)
MAPS = {"attentionFine": "attention-fine", "attentionCoarse": "attention-coarse", "uncertainty": "uncertainty"}


def run_cli(*words: object, script: Path = SCRIPT, python: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
    """Exit code and stdout; stderr must stay empty."""
    done = subprocess.run(
        [sys.executable, *python, script, *map(str, words)],
        capture_output=True, encoding="utf-8", timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A part of the phantom as the .nrrd files Slicer hands over, in a folder with a space and an umlaut."""
    folder = tmp_path_factory.mktemp("Fälle 1")
    paths = {}
    for name, image in thigh_phantom().images.items():
        paths[name.lower()] = folder / f"{name}.nrrd"
        sitk.WriteImage(image[10:60, 10:60, 10:50], str(paths[name.lower()]))
    return paths


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "Ausgabe ö"
    folder.mkdir()
    return folder


def given(images: dict[str, Path], model: Path) -> list[object]:
    return ["--ct", images["ct"], "--pet", images["pet"], "--model", model]


def progress_of(stdout: str) -> list[float]:
    return [float(part) for part in re.findall(r"^<filter-progress>(.*)</filter-progress>$", stdout, re.MULTILINE)]


def test_every_output_is_what_teachformer_segment_writes(
    images: dict[str, Path], tiny_model: Path, out: Path, tmp_path: Path
) -> None:
    """With a region whose centre is negative, which argparse alone would take for a flag, and off the middle."""
    ct = sitk.ReadImage(str(images["ct"]))
    left, back, up = ct.TransformContinuousIndexToPhysicalPoint((18.0, 30.0, 24.0))
    region = f"{-left - 250:.1f},{-back:.1f},{up:.1f},30,18,40"
    shifted = {}
    for name, path in images.items():  # moved so that the centre's first number is below 0
        image = sitk.ReadImage(str(path))
        image.SetOrigin((image.GetOrigin()[0] + 250.0, *image.GetOrigin()[1:]))
        shifted[name] = tmp_path / path.name
        sitk.WriteImage(image, str(shifted[name]))
    assert region.startswith("-")
    flags = [word for flag in MAPS for word in (f"--{flag}", out / f"{flag}.nrrd")]
    code, said = run_cli(
        *given(shifted, tiny_model), *flags, "--statistics", out / "s.json", "--region", region, out / "label.nrrd",
        "--returnparameterfile", tmp_path / "unused.txt",
    )  # fmt: skip
    assert code == 0, said
    parts = progress_of(said)
    assert parts[0] == 0.0
    assert parts[-1] == 1.0
    assert parts == sorted(parts)
    assert any(0.1 < part < 0.9 for part in parts)
    assert said.splitlines()[0].startswith("<filter-start><filter-name>TeachFormer</filter-name>")
    assert said.splitlines()[-1].startswith("<filter-end>")
    for line in said.splitlines():
        assert not line.startswith("<") or ET.fromstring(line).tag.startswith("filter-")

    inputs = ["--input", f"CT={shifted['ct']}", "--input", f"PET={shifted['pet']}"]
    wanted = [word for flag in MAPS.values() for word in (f"--{flag}", str(tmp_path / f"{flag}.nrrd"))]
    assert main(["segment", "--model", str(tiny_model), *inputs, *wanted, f"--region-ras={region}",
                 "--output", str(tmp_path / "label.nrrd"), "--statistics", str(tmp_path / "s.json")]) == 0  # fmt: skip
    for ours, theirs in (("label", "label"), *MAPS.items()):
        first, second = (
            sitk.ReadImage(str(folder / f"{name}.nrrd")) for folder, name in ((out, ours), (tmp_path, theirs))
        )
        np.testing.assert_allclose(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second), atol=1e-6)
        assert first.GetPixelID() == second.GetPixelID()
        reference = sitk.ReadImage(str(shifted["ct"]))
        for geometry in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(first, geometry)(), getattr(reference, geometry)(), atol=1e-9)
    uncertain = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "uncertainty.nrrd")))
    assert 0 < np.count_nonzero(uncertain) < 0.5 * uncertain.size, "the region was not used"
    figures, others = (json.loads((folder / "s.json").read_text(encoding="utf-8")) for folder in (out, tmp_path))
    assert figures["labels"] == others["labels"]
    assert figures["reference"] == str(shifted["ct"])
    assert len(list(out.iterdir())) == 5


def test_empty_and_omitted_flags_count_as_not_given(images: dict[str, Path], tiny_model: Path, out: Path) -> None:
    empty = [word for flag in FLAGS if flag not in ("ct", "pet", "model") for word in (f"--{flag}", "")]
    code, said = run_cli(*empty, *given(images, tiny_model), out / "label.nrrd")
    assert code == 0, said
    assert [file.name for file in out.iterdir()] == ["label.nrrd"]


BAD_CALLS = {
    "rotated region": (["--region", ",".join(["1"] * 15)], "A rotated box cannot be used"),
    "region of words": (["--region", "here"], "six numbers"),
    "unknown model": (["--model", "absent"], "There is no model 'absent'"),
    "fourth of two channels": (["--channel4", "{ct}"], "no fourth channel"),
    "MR without a channel": (["--mr", "{ct}"], "The model has no channel 'MR'"),
    "units": (["--ct", "{pet}"], "HU"),
    "two outputs are one": (["--uncertainty", "{out}/label.nrrd"], "another output"),
    "output folder missing": (["--statistics", "{out}/none/s.json"], "does not exist"),
    "unknown flag": (["--colour", "red"], "unrecognized arguments"),
    "flag without value": (["--ct"], "--ct needs a value"),
}


@pytest.mark.parametrize("fault", BAD_CALLS)
def test_bad_input_is_one_sentence_on_stdout_and_exit_2(
    fault: str, images: dict[str, Path], tiny_model: Path, out: Path
) -> None:
    words, reason = BAD_CALLS[fault]
    places = {**images, "out": out}
    code, said = run_cli(out / "label.nrrd", *given(images, tiny_model), *(word.format(**places) for word in words))
    assert code == 2
    errors = [line for line in said.splitlines() if not line.startswith("<")]
    assert len(errors) == 1, said
    assert errors[0].startswith("error: ")
    assert reason in errors[0]
    assert "<filter-end>" not in said
    assert list(out.iterdir()) == []


def test_a_channel_that_is_missing_is_named(images: dict[str, Path], tiny_model: Path, out: Path) -> None:
    code, said = run_cli("--ct", images["ct"], "--pet", "", "--model", tiny_model, out / "label.nrrd")
    assert code == 2
    assert "error: No image is given for PET" in said
    assert list(out.iterdir()) == []


def test_the_output_is_required() -> None:
    code, said = run_cli("--device", "cpu")
    assert (code, said) == (2, "error: the following arguments are required: output, or --batchInput for a batch\n")


@pytest.fixture
def cases(images: dict[str, Path], tmp_path: Path) -> Path:
    """A folder with one subfolder a case, here one, and a table that names it and one that does not exist."""
    folder = tmp_path / "Fälle"
    (folder / "P1").mkdir(parents=True)
    for path in images.values():
        shutil.copy(path, folder / "P1")
    (folder / "one.csv").write_text("case,CT,PET\nP1,P1/CT.nrrd,P1/PET.nrrd\n", encoding="utf-8")
    (folder / "two.csv").write_text("case,CT,PET\nP1,P1/CT.nrrd,P1/PET.nrrd\nP2,none.nrrd,\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("source", [".", "one.csv"], ids=["a folder", "a table"])
def test_a_batch_fills_the_volume_that_slicer_asks_for_with_nothing(
    source: str, cases: Path, tiny_model: Path, out: Path, tmp_path: Path
) -> None:
    label = tmp_path / "label.nrrd"
    words = ("--model", tiny_model, "--batchInput", cases / source, "--batchOutput", out, label)
    code, said = run_cli(*words)
    assert code == 0, said
    assert {"P1.nii.gz", "P1.json"} <= {file.name for file in out.iterdir()}
    read = sitk.ReadImage(str(label))
    assert (read.GetSize(), read.GetPixelID()) == ((1, 1, 1), sitk.sitkUInt8)
    assert not sitk.GetArrayFromImage(read).any()
    code, said = run_cli("--resume", *words[:-1], tmp_path / "none" / "label.nrrd")
    assert (code, said.count("error: ")) == (2, 1)
    assert "does not exist" in said


def test_a_batch_with_a_case_that_failed_loads_nothing(
    cases: Path, tiny_model: Path, out: Path, tmp_path: Path
) -> None:
    label = tmp_path / "label.nrrd"
    code, _said = run_cli("--model", tiny_model, "--batchInput", cases / "two.csv", "--batchOutput", out, label)
    assert code == 1
    assert not label.exists()


def test_what_only_one_case_has_is_refused_for_a_batch(tmp_path: Path) -> None:
    """Slicer would read a map back that the batch never writes."""
    batch = ("--batchInput", tmp_path, "--batchOutput", tmp_path / "out", tmp_path / "label.nrrd")
    code, said = run_cli("--region", "1,2,3,4,5,6", "--uncertainty", "u.nrrd", *batch)
    assert code == 2
    assert said.startswith("error: give either --batchInput or the images and maps of one case: ")
    assert said.endswith("leave out --region, --uncertainty\n")
    assert not (tmp_path / "out").exists()


STAGES = ("<filter-start>", "<filter-comment>Segmenting", "file")


@pytest.mark.skipif(os.name != "posix", reason="a signal that a process can see is POSIX's")
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_leaves_nothing(
    stage: str, images: dict[str, Path], tiny_model: Path, out: Path, tmp_path: Path
) -> None:
    """At the start, at the network, and while a file is written; the images are large so that all of them last."""
    paths = {}
    for name, path in images.items():
        image = sitk.ReadImage(str(path))
        size = [4 * n for n in image.GetSize()]
        spacing = [mm / 4 for mm in image.GetSpacing()]
        large = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing)
        large[0, 0, 0] = -1000 if name == "ct" else 0
        paths[name] = tmp_path / path.name
        sitk.WriteImage(large, str(paths[name]))
    flags = [word for flag in MAPS for word in (f"--{flag}", out / f"{flag}.nrrd")]
    command = [sys.executable, SCRIPT, *given(paths, tiny_model), *flags, out / "label.nrrd"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("<filter-comment>Writing" if stage == "file" else stage):
                break
        while stage == "file" and process.poll() is None and not list(out.iterdir()):
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaints == ""
    assert list(out.iterdir()) == []


def test_a_missing_package_is_exit_3_and_the_core_is_found_in_each_layout(tmp_path: Path) -> None:
    """Without its site-packages Python has neither numpy nor TeachFormerCore: the script finds the latter itself."""
    alone, installed = tmp_path / "alone" / "cli-modules", tmp_path / "Slicer-5.12" / "cli-modules"
    for folder in (alone, installed):
        folder.mkdir(parents=True)
        shutil.copy(SCRIPT, folder)
    modules = installed.parent / "qt-scripted-modules"
    shutil.copytree(REPOSITORY / "TeachFormerCore", modules / "TeachFormerCore", ignore=shutil.ignore_patterns("*.pyc"))
    bare = {"python": ("-S",), "PYTHONPATH": ""}
    call = ("--ct", "ct.nrrd", "label.nrrd")
    code, said = run_cli(*call, script=alone / SCRIPT.name, **bare)  # type: ignore[arg-type]
    assert code == 3
    assert "TeachFormerCore was not found" in said
    for script in (installed / SCRIPT.name, SCRIPT):
        code, said = run_cli(*call, script=script, **bare)  # type: ignore[arg-type]
        assert code == 3, said
        assert re.search(r"^error: The Python package '\w+' is not installed: ", said, re.MULTILINE)
    site = {"python": ("-S",), "PYTHONPATH": sysconfig.get_path("purelib")}
    code, said = run_cli("--model", "absent", "label.nrrd", script=installed / SCRIPT.name, **site)  # type: ignore[arg-type]
    assert code == 2
    assert "There is no model 'absent'" in said


def test_result_and_error_files(images: dict[str, Path], tiny_model: Path, out: Path) -> None:
    """What the GUI will read; the same worker, in a process of its own."""
    code = """
import os, sys
from pathlib import Path
from TeachFormerCore.inference.outputs import Outputs
from TeachFormerCore.inference.worker import Job, run_segmentation
out, model, ct, pet = sys.argv[1:]
os.environ["OMP_NUM_THREADS"] = "1"
job = Job(inputs=(f"CT={ct}", f"PET={pet}"), outputs=Outputs(label=Path(out, "label.nrrd")), model=model)
sys.exit(run_segmentation(job, result_file=Path(out, "r.json"), error_file=Path(out, "e.json")))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, str(out)]
    done = subprocess.run(
        [*command, tiny_model, images["ct"], images["pet"]], capture_output=True, encoding="utf-8", env=environment
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert sorted(file.name for file in out.iterdir()) == ["label.nrrd", "r.json"]
    result = json.loads((out / "r.json").read_text(encoding="utf-8"))
    assert result.pop("seconds") > 0
    assert result.pop("runtime").split()[0] in ("torch", "openvino", "onnx")
    assert result == {"exit_code": 0, "model": "tiny", "version": "1", "device": result["device"], "notices": [],
                      "outputs": {"label": str(out / "label.nrrd")}}  # fmt: skip
    for file in out.iterdir():
        file.unlink()
    done = subprocess.run(
        [*command, tiny_model, out / "none.nrrd", images["pet"]], capture_output=True, encoding="utf-8", env=environment
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert [file.name for file in out.iterdir()] == ["e.json"]
    error = json.loads((out / "e.json").read_text(encoding="utf-8"))
    assert list(error) == ["cause", "fix", "original", "exit_code"]
    assert error == {
        "cause": f"{out / 'none.nrrd'} does not exist",
        "fix": "check the path.",
        "original": f"FileNotFoundError: [Errno 2] No such file or directory: '{out / 'none.nrrd'}'",
        "exit_code": 2,
    }


def test_what_libraries_write_to_stderr_goes_to_stdout() -> None:
    """At the level of the process, as C++ writes it; only while the worker works."""
    code = """
import os, sys
from TeachFormerCore.inference import worker
with worker._everything_on_stdout():
    os.write(2, b"from below")
    print("from Python", file=sys.stderr)
os.write(2, b"after")
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment)
    assert (done.stdout, done.stderr) == ("from belowfrom Python\n", "after")


@pytest.mark.parametrize(
    ("error", "cause", "fix", "exit_code"),
    [
        (InputError("a (b: c) is odd: do d: now."), "a (b: c) is odd", "do d: now.", 2),
        (InputError("No remedy here."), "No remedy here.", "", 2),
        (MissingDependencyError("x is missing: install it."), "x is missing", "install it.", 3),
        (ModuleNotFoundError("No module", name="torch.nn"), "The Python package 'torch' is not installed", None, 3),
        (ModuleNotFoundError("No module", name="bug"), "An internal error (ModuleNotFoundError: No module)", None, 4),
        (OSError(28, "No space left on device"), "Writing failed ([Errno 28] No space left on device)", None, 2),
        (MemoryError(), "The memory ran out", None, 4),
        (TeachFormerError("It diverged."), "It diverged.", "", 4),
        (ZeroDivisionError("oops"), "An internal error (ZeroDivisionError: oops)", None, 4),
    ],
)
def test_each_failure_is_explained(error: Exception, cause: str, fix: str | None, exit_code: int) -> None:
    failure = explain(error)
    assert (failure.cause, failure.exit_code) == (cause, exit_code)
    assert failure.fix == fix if fix is not None else failure.fix
    if isinstance(error, TeachFormerError):
        assert failure.message == str(error)
    elif not isinstance(error, MemoryError):
        assert str(error) in failure.original


def channels(*names: str) -> dict[str, object]:
    modality = {"CT": "CT", "PET": "PET"}
    return {"name": "m", "channels": [{"name": name, "modality": modality.get(name, "MR")} for name in names]}


@pytest.mark.parametrize(
    ("names", "pairs", "expected"),
    [
        (("CT", "PET", "MR_T1"), ["MR=m", "CT=c"], ["MR_T1=m", "CT=c"]),
        (("CT", "PET", "MR_T1", "MR_T2"), ["MR=1", "channel4=2"], ["MR_T1=1", "MR_T2=2"]),
        (("T1", "T2", "T1ce", "FLAIR"), ["MR=1", "channel4=a=b"], ["MR=1", "FLAIR=a=b"]),  # ambiguous: the core says so
        (("CT", "PET", "channel4"), ["channel4=x"], ["channel4=x"]),
        (("MR", "MR_T2"), ["MR=x"], ["MR=x"]),
    ],
)
def test_slots_become_the_models_channels(names: tuple[str, ...], pairs: list[str], expected: list[str]) -> None:
    assert name_channels(pairs, channels(*names)) == expected


def module_of_script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("TeachFormerCLI", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_description_and_the_script_have_the_same_flags() -> None:
    root = ET.parse(SCRIPT.with_suffix(".xml")).getroot()
    described = {parameter.findtext("longflag") for parameter in root.iterfind("parameters/*[longflag]")}
    assert described == {f"--{name}" for name in (*FLAGS, *SWITCHES)}
    actions = module_of_script().make_parser()._actions
    parsed = {flag for action in actions for flag in action.option_strings}
    assert parsed - {"-h", "--help", "--returnparameterfile"} == described
    indexed = list(root.iterfind("parameters/*[index]"))
    assert [(p.tag, p.get("type"), p.findtext("index"), p.findtext("channel")) for p in indexed] == [
        ("image", "label", "0", "output")
    ]
    assert [action.dest for action in actions if not action.option_strings] == ["output"]
    region = root.find("parameters/region")
    assert region is not None
    assert region.get("coordinateSystem") == "ras"
    for parameter in root.iterfind("parameters/string-enumeration"):
        assert parameter.findtext("default") in [element.text for element in parameter.iterfind("element")]
    names = [parameter.findtext("name") for parameter in root.iterfind("parameters/*[name]")]
    assert len(set(names)) == len(names)


def test_nothing_runs_at_file_scope() -> None:
    body = ast.parse(SCRIPT.read_text(encoding="utf-8")).body
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
    *rest, guard = body[1:]
    assert all(isinstance(node, allowed) for node in rest)
    assert all(isinstance(n.value, ast.Dict | ast.Tuple) for n in rest if isinstance(n, ast.Assign))
    assert isinstance(guard, ast.If)
    imported = {alias.name for node in rest if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)
