"""Where results go: never over what was read, however the two paths are written."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.commands import main
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.outputs import Outputs, place


def write_images(folder: Path) -> dict[str, Path]:
    random = np.random.default_rng(0)
    files = {}
    for name, values in (("CT", random.normal(-400, 300, (16,) * 3)), ("PET", random.gamma(2, 1.5, (16,) * 3))):
        image = sitk.GetImageFromArray(values.astype(np.float32))
        image.SetSpacing((4.0, 4.0, 4.0))
        files[name] = folder / f"{name.lower()}.nii.gz"
        sitk.WriteImage(image, str(files[name]))
    return files


@pytest.mark.parametrize(
    "written", ["~/ct.nii.gz", " {folder}/ct.nii.gz ", "{folder}/link.nii.gz", "{folder}/a/../ct.nii.gz"]
)
def test_an_image_is_not_overwritten_whatever_its_path_looks_like(
    written: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_images(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "link.nii.gz").symlink_to(files["CT"])
    monkeypatch.setenv("HOME", str(tmp_path))
    before = files["CT"].read_bytes()
    inputs = ["--input", f"CT={written.format(folder=tmp_path)}", "--input", f"PET={files['PET']}"]
    call = ["segment", "--model", str(tiny_model), *inputs, "--runtime", "torch"]
    assert main([*call, "--output", str(files["CT"])]) == 2
    assert "ct.nii.gz is also an input or another output" in capsys.readouterr().err
    assert files["CT"].read_bytes() == before
    assert main([*call, "--output", str(tmp_path / "mask.nii.gz")]) == 0


def test_a_result_file_is_an_output_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    from TeachFormerCore.inference.cancellation import Cancellation
    from TeachFormerCore.inference.case import Job, segment_case

    files = write_images(tmp_path)
    outputs = Outputs(label=tmp_path / "mask.nii.gz", statistics=tmp_path / "r.json")
    job = Job(inputs=tuple(f"{name}={file}" for name, file in files.items()), outputs=outputs, model=str(tiny_model))
    with pytest.raises(InputError, match=r"r.json is also an input"):
        segment_case(job, Cancellation(), result_file=tmp_path / "r.json")


@pytest.mark.parametrize(
    "other", ["CASE ä.nii.gz", unicodedata.normalize("NFD", "case ä.nii.gz"), "x/../case ä.nii.gz"]
)
def test_names_that_some_file_system_does_not_tell_apart_are_one_place(other: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert place(tmp_path / other) == place(tmp_path / unicodedata.normalize("NFC", "case ä.nii.gz"))
    with pytest.raises(InputError, match="another output"):
        Outputs(label=tmp_path / "case ä.nii.gz", uncertainty=tmp_path / other).check([])
