"""A user without a home folder, as in many a container: what is only looked for is absent, and the program goes on."""

import os
from pathlib import Path

import pytest

from TeachFormerCore import paths
from TeachFormerCore.commands import main
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.model_folder import find_model, model_folders

pytestmark = pytest.mark.skipif(os.name != "posix", reason="homes as POSIX has them")


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in (
        "HOME",
        "XDG_DATA_HOME",
        "XDG_CACHE_HOME",
        "TEACHFORMER_MODELS",
        "TEACHFORMER_RUNS",
        "TEACHFORMER_CACHE",
    ):
        monkeypatch.delenv(name, raising=False)


def test_the_shipped_models_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert {folder.parent for folder in model_folders()} == {paths.SHIPPED_MODELS}
    assert "sts_ct_pet" in capsys.readouterr().out
    assert find_model().parent == paths.SHIPPED_MODELS


def test_a_case_is_segmented_without_a_cache(tiny_model: Path, tmp_path: Path) -> None:
    import numpy as np
    import SimpleITK as sitk

    random = np.random.default_rng(0)
    inputs = []
    for name, values in (("CT", random.normal(-400, 300, (16,) * 3)), ("PET", random.gamma(2, 1.5, (16,) * 3))):
        image = sitk.GetImageFromArray(values.astype(np.float32))
        image.SetSpacing((4.0, 4.0, 4.0))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        inputs += ["--input", f"{name}={tmp_path / name}.nii.gz"]
    assert main(["segment", "--model", str(tiny_model), *inputs, "--output", str(tmp_path / "mask.nii.gz")]) == 0


def test_what_has_to_be_kept_needs_a_place(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "import", str(tiny_model)]) == 2
    assert "no home folder to keep files in: set TEACHFORMER_MODELS" in capsys.readouterr().err
    with pytest.raises(InputError, match="set TEACHFORMER_RUNS"):
        paths.runs_folder()
    monkeypatch.setenv("TEACHFORMER_MODELS", str(tmp_path / "models"))
    assert main(["models", "import", str(tiny_model)]) == 0
