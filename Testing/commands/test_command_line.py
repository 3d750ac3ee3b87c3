"""The program as a shell sees it: light to start, one sentence for bad input, an exit code, no half-written file."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.phantom import thigh_phantom
from TeachFormerCore.errors import MissingDependencyError, TeachFormerError

Cli = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = (
    "torch",
    "numpy",
    "SimpleITK",
    "safetensors",
    "scipy",
    "monai",
    "pytorch_lightning",
    "jsonargparse",
    "matplotlib",
)
REPOSITORY = Path(__file__).parents[2]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


@pytest.mark.parametrize(
    "statement", ["import TeachFormerCore", "from TeachFormerCore.commands import main; main(['--help'])"]
)
def test_nothing_heavy_is_imported_to_start(statement: str) -> None:
    """What makes it start in well under half a second, without asserting a time."""
    code = f"""
import sys
try:
    {statement}
except SystemExit:
    pass
print([name for name in {(*HEAVY, "slicer", "qt", "ctk")} if name in sys.modules], file=sys.stderr)
"""
    assert run_python(code).stderr.strip() == "[]"


def test_every_module_imports_without_slicer_and_names_every_command(cli: Cli) -> None:
    code = """
import importlib, pkgutil, sys, TeachFormerCore
for module in pkgutil.walk_packages(TeachFormerCore.__path__, "TeachFormerCore."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print([name for name in ("slicer", "qt", "ctk", "vtk") if name in sys.modules])
"""
    assert run_python(code).stdout.strip() == "[]"
    listing = cli("--help").stdout
    for command in ("segment", "batch", "evaluate", "models", "demo", "data", "networks", "train", "export"):
        assert f"\n  {command} " in listing
        assert cli(command, "--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), 2), (("nonsense",), 2), (("--version",), 0), (("segment",), 2), (("models", "list"), 0)],
)
def test_exit_codes_of_calls(cli: Cli, arguments: tuple[str, ...], code: int) -> None:
    assert cli(*arguments).returncode == code


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (TeachFormerError("it diverged"), 4, "it diverged"),
        (MissingDependencyError("install it"), 3, "install it"),
        (KeyboardInterrupt(), 130, "cancelled"),
        (MemoryError(), 4, "memory ran out"),
        (OSError(28, "No space left on device"), 2, "free some space"),
        (PermissionError(13, "Permission denied", "/a/b"), 2, "/a/b cannot be used (Permission denied): check"),
        (OSError(36, "File name too long", "/a/c"), 2, "/a/c cannot be used (File name too long): check"),
        (ConnectionResetError(104, "Connection reset"), 4, "internal error"),
        (ZeroDivisionError("oops"), 4, "internal error (ZeroDivisionError: oops)"),
    ],
)
def test_each_kind_of_failure_has_its_code_and_sentence(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from TeachFormerCore.commands import main, models

    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(models, "run", fail)
    assert main(["models", "list"]) == code
    assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small part of the phantom around its tumour as files, in a folder with a space and an umlaut."""
    folder = tmp_path_factory.mktemp("Fälle 1")
    whole = thigh_phantom()
    for name, image in (*whole.images.items(), ("label", whole.label)):
        sitk.WriteImage(image[10:60, 10:60, 10:50], str(folder / f"{name.lower()}.nii.gz"))
    return folder


def segment(cli: Cli, model: Path, folder: Path, *more: object, **options: object) -> subprocess.CompletedProcess[str]:
    inputs = ("--input", f"CT={folder / 'ct.nii.gz'}", "--input", f"PET={folder / 'pet.nii.gz'}")
    return cli("segment", "--model", model, *inputs, *more, **options)


def test_segment_writes_everything_on_the_references_grid(
    cli: Cli, tiny_model: Path, phantom: Path, tmp_path: Path
) -> None:
    outputs = {
        flag: tmp_path / f"{flag} ö.nii.gz"
        for flag in (
            *("output", "attention-fine", "attention-coarse", "attention-gradcam", "uncertainty", "probabilities"),
        )
    }
    flags = [word for flag, path in outputs.items() for word in (f"--{flag}", path)]
    result = segment(cli, tiny_model, phantom, *flags, "--statistics", tmp_path / "s.json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    reference = sitk.ReadImage(str(phantom / "ct.nii.gz"))
    for path in outputs.values():
        image = sitk.ReadImage(str(path))
        assert image.GetSize() == reference.GetSize()
        np.testing.assert_allclose(image.GetOrigin(), reference.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(image.GetSpacing(), reference.GetSpacing(), atol=1e-5)
        np.testing.assert_allclose(image.GetDirection(), reference.GetDirection(), atol=1e-6)
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(outputs["output"])))
    assert mask.dtype == np.uint8
    figures = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert set(figures) == {"reference", "notices", "pet_units", "labels"}
    assert figures["labels"][0]["voxels"] == int((mask == 1).sum())
    assert sitk.ReadImage(str(outputs["probabilities"])).GetNumberOfComponentsPerPixel() == 2
    for flag in ("attention-fine", "attention-coarse", "attention-gradcam", "uncertainty"):
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(outputs[flag])))
        assert values.min() >= 0
        assert 0 < values.max() <= 1


def test_a_segmentation_file_holds_the_same_mask_and_its_names(tiny_model: Path, phantom: Path, tmp_path: Path) -> None:
    from TeachFormerCore.commands import main

    inputs = [
        "--model",
        str(tiny_model),
        "--input",
        f"CT={phantom / 'ct.nii.gz'}",
        "--input",
        f"PET={phantom / 'pet.nii.gz'}",
    ]
    for name in ("mask.nii.gz", "mask.seg.nrrd"):
        assert main(["segment", *inputs, "--output", str(tmp_path / name)]) == 0
    plain, named = (sitk.ReadImage(str(tmp_path / name)) for name in ("mask.nii.gz", "mask.seg.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(named), sitk.GetArrayFromImage(plain))
    assert named.GetMetaData("Segment0_Name") == "GTV"


def test_a_broken_model_does_not_hide_the_others(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from TeachFormerCore.commands import main
    from TeachFormerCore.inference.model_import import import_model

    folder = import_model(tiny_model)
    (folder / "model.json").write_text("{", encoding="utf-8")
    assert main(["models", "list", "--json"]) == 1
    said = capsys.readouterr()
    assert [card["name"] for card in json.loads(said.out)] == ["sts_ct_pet"]
    assert "could not be read as JSON" in said.err


def test_segment_needs_only_torch_numpy_simpleitk_and_safetensors(
    cli: Cli, tiny_model: Path, phantom: Path, tmp_path: Path
) -> None:
    """The optional packages are hidden: None in sys.modules makes their import fail."""
    hidden = (
        *("monai", "pytorch_lightning", "lightning_fabric", "jsonargparse", "yaml", "scipy", "matplotlib", "nibabel"),
        *("pydicom", "pandas", "jinja2", "tensorboard", "slicer"),
    )
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules.update(dict.fromkeys({hidden}))")
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    mask = tmp_path / "mask.nrrd"
    result = segment(cli, tiny_model, phantom, "--output", mask, "--statistics", tmp_path / "s.json", env=environment)
    assert result.returncode == 0, result.stderr
    assert mask.exists()
    refused = cli("train", "--config", "x.yaml", env=environment)
    assert refused.returncode == 3
    assert "pip install" in refused.stderr


BAD_CALLS = {
    "unknown model": (["--model", "absent"], "There is no model 'absent'"),
    "folder that is no model": (["--model", "{folder}"], "not a model folder"),
    "channel missing": (["--input", "CT={ct}"], "PET"),
    "channel unknown": (["--input", "CT={ct}", "--input", "PET={pet}", "--input", "US={pet}"], "US"),
    "channel twice": (["--input", "CT={ct}", "--input", "ct={ct}", "--input", "PET={pet}"], "twice"),
    "no such file": (["--input", "CT={folder}/none.nii.gz", "--input", "PET={pet}"], "does not exist"),
    "folder without series": (["--input", "CT={folder}", "--input", "PET={pet}"], "holds no DICOM series"),
    "PET in Bq/mL": (["--input", "CT={ct}", "--input", "PET={bqml}"], "Bq/mL"),
    "bqml without factor": (["--input", "CT={ct}", "--input", "PET={bqml}", "--pet-units", "bqml"], "--suv-factor"),
    "CT not in HU": (["--input", "CT={pet}", "--input", "PET={pet}"], "HU"),
    "NaN": (["--input", "CT={ct}", "--input", "PET={nan}"], "NaN"),
    "constant": (["--input", "CT={ct}", "--input", "PET={constant}"], "{constant}"),
    "4D": (["--input", "CT={ct}", "--input", "PET={four}"], "4D"),
    "2D": (["--input", "CT={ct}", "--input", "PET={two}"], "2D"),
    "no overlap": (["--input", "CT={ct}", "--input", "PET={away}"], "share no space"),
    "region outside": (["--region-ras", "900,900,900,5,5,5"], "outside the image"),
    "region on the other side": (["--region-ras", "-900,-900,-900,5,5,5"], "outside the image"),
    "region malformed": (["--region-ras", "1,2,3"], "six numbers"),
    "output without ending": (["--output", "{out}/mask.txt"], "image ending"),
    "output folder missing": (["--output", "{out}/none/mask.nii.gz"], "does not exist"),
    "output is an input": (["--output", "{ct}"], "also an input"),
    "two outputs are one": (["--output", "{out}/a.nii.gz", "--uncertainty", "{out}/a.nii.gz"], "another output"),
    "larger than the model knows": (
        ["--input", "CT={far_ct}", "--input", "PET={far_pet}"],
        "place a box. The image covers",
    ),
    "region larger than the model knows": (
        ["--input", "CT={far_ct}", "--input", "PET={far_pet}", "--region-ras", "96,22,640,150,60,60"],
        "The region covers",
    ),
    "map named as a segmentation": (["--uncertainty", "{out}/u.seg.nrrd"], "which only the mask is"),
    "unknown device": (["--device", "abacus"], "device"),
    "unknown runtime": (["--runtime", "magic"], "runtime"),
}


@pytest.fixture(scope="module")
def bad_files(phantom: Path) -> dict[str, str]:
    pet = sitk.ReadImage(str(phantom / "pet.nii.gz"))
    array = sitk.GetArrayFromImage(pet)
    holes = array.copy()
    holes[3, 3, 3] = np.nan
    away = sitk.Image(pet)
    away.SetOrigin((9000.0, 0.0, 0.0))

    def like(values: np.ndarray) -> sitk.Image:
        image = sitk.GetImageFromArray(values.astype(np.float32))
        image.CopyInformation(pet)
        return image

    def far(image: sitk.Image) -> sitk.Image:
        """The same voxels, four times as large."""
        large = sitk.Image(image)
        large.SetSpacing([4 * mm for mm in image.GetSpacing()])
        return large

    images = {
        "bqml": like(array * 5000),
        "nan": like(holes),
        "constant": like(np.full_like(array, 1.0)),
        "four": sitk.JoinSeries([pet, pet]),
        "two": pet[:, :, 5],
        "away": away,
        "far_ct": far(sitk.ReadImage(str(phantom / "ct.nii.gz"))),
        "far_pet": far(pet),
    }
    for name, image in images.items():
        sitk.WriteImage(image, str(phantom / f"{name}.nii.gz"))
    paths = {name: str(phantom / f"{name}.nii.gz") for name in (*images, "ct", "pet")}
    return paths | {"folder": str(phantom)}


@pytest.mark.parametrize("fault", BAD_CALLS)
def test_bad_input_is_one_sentence_exit_2_and_no_file(
    fault: str,
    tiny_model: Path,
    bad_files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from TeachFormerCore.commands import main

    out = tmp_path / "out"
    out.mkdir()
    places = bad_files | {"out": str(out)}
    words, reason = BAD_CALLS[fault]
    given = [word.format(**places) for word in words]
    if "--model" not in given:
        given += ["--model", str(tiny_model)]
    if "--input" not in given:
        given += ["--input", f"CT={bad_files['ct']}", "--input", f"PET={bad_files['pet']}"]
    if "--output" not in given:
        given += ["--output", str(out / "mask.nii.gz")]
    before = {file: file.stat().st_mtime_ns for file in Path(bad_files["folder"]).iterdir()}
    assert main(["segment", *given]) == 2
    said = capsys.readouterr().err
    assert reason.format(**places) in said
    assert said.startswith("teachformer: error: ")
    assert said.count("\n") == 1, "one sentence, no traceback"
    assert list(out.iterdir()) == []
    assert {file: file.stat().st_mtime_ns for file in Path(bad_files["folder"]).iterdir()} == before


def test_a_full_disk_leaves_nothing(cli: Cli, tiny_model: Path, phantom: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the mask fits, the attention map does not."""
    import resource

    out = tmp_path / "out"
    out.mkdir()

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = segment(
        cli, tiny_model, phantom, "--output", out / "mask.nii.gz", "--attention-fine", out / "fine.nii.gz",
        preexec_fn=limit,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert "disk is not full" in result.stderr
    assert list(out.iterdir()) == []


def test_models_are_listed_checked_imported_and_removed(cli: Cli, tiny_model: Path) -> None:
    assert cli("models", "check", tiny_model).returncode == 0
    assert cli("models", "import", tiny_model).returncode == 0
    names = [card["name"] for card in json.loads(cli("models", "list", "--json").stdout)]
    assert "tiny" in names
    assert "tiny" in cli("models", "list").stdout
    assert cli("models", "check", "tiny").returncode == 0
    assert cli("models", "remove", "tiny").returncode == 0
    assert cli("models", "check", "tiny").returncode == 2


def test_a_model_is_listed_by_the_name_that_it_is_called_by(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's, which a copy may have changed."""
    from TeachFormerCore.commands import main
    from TeachFormerCore.paths import user_models_folder

    for name in ("first", "second"):
        shutil.copytree(tiny_model, user_models_folder() / name)
    assert main(["models", "list", "--json"]) == 0
    names = [card["name"] for card in json.loads(capsys.readouterr().out)]
    assert names[-2:] == ["first", "second"]
    assert main(["models", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][-2:] == ["first", "second"]
    for name in names[-2:]:
        assert main(["models", "check", name]) == 0
        assert main(["models", "remove", name]) == 0
