"""What users get: 'pip install .' into an environment of its own, run from another folder, with the weights."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SHIPPED = REPOSITORY / "TeachFormerCore" / "models"


def test_an_installed_package_finds_the_shipped_weights(sources: Path, tmp_path: Path) -> None:
    """The wheel is built and installed; torch and the like are lent by this environment, which saves gigabytes."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", sources], check=True, timeout=300)
    # Behind the environment's own packages: it is the installed TeachFormer that is found, not this checkout.
    own = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], encoding="utf-8"
        ).strip()
    )
    (own / "lent.pth").write_text(sysconfig.get_path("purelib"))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = subprocess.check_output(
        [python, "-c", "import TeachFormerCore; print(TeachFormerCore.__file__)"],
        encoding="utf-8",
        cwd=tmp_path,
        env=clean,
    )
    assert Path(where.strip()).is_relative_to(environment)
    program = environment / "bin" / "teachformer"
    listed = subprocess.run(
        [program, "models", "list", "--json"], capture_output=True, encoding="utf-8", cwd=tmp_path, env=clean
    )
    assert listed.returncode == 0, listed.stderr
    names = [card["name"] for card in json.loads(listed.stdout)]
    assert names == sorted(file.parent.name for file in SHIPPED.glob("*/model.json"))
    assert names
    for name in names:
        checked = subprocess.run(
            [program, "models", "check", name], capture_output=True, encoding="utf-8", cwd=tmp_path, env=clean
        )
        assert checked.returncode == 0, checked.stderr
        assert str(environment) in checked.stdout


@pytest.mark.full
def test_the_four_declared_dependencies_are_enough(sources: Path, tmp_path: Path) -> None:
    """A truly empty environment: only what pyproject.toml's dependencies bring."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    constraints = REPOSITORY / "constraints.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", constraints, sources], check=True, timeout=900)
    code = (
        "from TeachFormerCore.data.phantom import thigh_phantom as t; import SimpleITK as s; p = t()\n"
        "[s.WriteImage(i, n + '.nii.gz') for n, i in p.images.items()]"
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path, env=clean)
    program = [environment / "bin" / "teachformer", "segment", "--input", "CT=CT.nii.gz", "--input", "PET=PET.nii.gz"]
    subprocess.run([*program, "--output", "mask.nii.gz", "--statistics", "s.json"], check=True, cwd=tmp_path, env=clean)
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["labels"][0]["volume_ml"] > 50


def test_no_pickle_and_no_image_is_tracked() -> None:
    tracked = subprocess.check_output(["git", "ls-files"], encoding="utf-8", cwd=REPOSITORY).split()
    refused = (".pt", ".pth", ".ckpt", ".pkl", ".npz", ".nii", ".nii.gz", ".mha", ".nrrd", ".dcm")
    assert [name for name in tracked if name.endswith(refused)] == []


def test_versions_agree() -> None:
    import TeachFormerCore

    assert sys.version_info >= (3, 10)
    shown = subprocess.check_output(
        [sys.executable, "-m", "TeachFormerCore", "--version"], encoding="utf-8", cwd=REPOSITORY
    )
    assert shown.strip() == f"teachformer {TeachFormerCore.__version__}"
