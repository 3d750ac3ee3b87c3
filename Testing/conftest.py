"""What the whole suite shares: real data where it is, the program as users start it, a tiny model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# One thread per process: the suite shares its cores with others, and two threads that spin lose most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def data_folder() -> Path | None:
    """The folder of the real datasets, where there is one."""
    for folder in (os.environ.get("TEACHFORMER_DATA"), REPOSITORY.parent / "shared" / "data"):
        if folder and (Path(folder) / "STS_PETCT_MR").is_dir():
            return Path(folder)
    return None


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what is installed: setuptools keeps what it builds beside the sources, and packs that too next time."""
    copy = tmp_path / "sources"
    package = Path("TeachFormerCore")
    shutil.copytree(REPOSITORY / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(REPOSITORY / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def sts() -> Path:
    """The soft-tissue sarcoma dataset."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no real data: neither TEACHFORMER_DATA nor ../shared/data holds STS_PETCT_MR")
    return folder / "STS_PETCT_MR"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nor its cache, which all tests share: what it remembers is keyed by content."""
    os.environ["TEACHFORMER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and models of a test never touch the user's."""
    root = tmp_path_factory.mktemp("user")
    monkeypatch.setenv("TEACHFORMER_RUNS", str(root / "runs"))
    monkeypatch.setenv("TEACHFORMER_MODELS", str(root / "models"))


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli() -> Cli:
    """``cli("models", "list")`` runs the program as a user does, and never fails by itself."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "TeachFormerCore", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **options.pop("env", {})}  # type: ignore[dict-item]
        defaults = {"cwd": REPOSITORY, "capture_output": True, "encoding": "utf-8", "timeout": 300, "env": environment}
        return subprocess.run(command, **(defaults | options))  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A model folder with a very small network of random weights: CT + PET at 4 mm, windows of 32^3."""
    return make_tiny_model(tmp_path)


@pytest.fixture(scope="session")
def shared_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, made once for all tests that leave it as it is."""
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def make_tiny_model(root: Path) -> Path:
    """Makes it in a folder."""
    import torch
    from safetensors.torch import save_file

    from TeachFormerCore.data.channels import default_normalisation
    from TeachFormerCore.inference.model_folder import write_model
    from TeachFormerCore.networks import build_network

    torch.manual_seed(0)
    arguments = {"filters": 2, "transformer_depth": 4}
    network = build_network("h_denseformer_light", in_channels=2, out_channels=2, image_size=(32, 32, 32), **arguments)
    weights = root / "weights.safetensors"
    save_file(network.state_dict(), weights)
    card = {
        "schema_version": 1,
        "name": "tiny",
        "version": "1",
        "description": "random weights, for tests",
        "network": {"name": "h_denseformer_light", "arguments": arguments},
        "channels": [
            {"name": name, "modality": name, "normalisation": default_normalisation(name), "optional": False}
            for name in ("CT", "PET")
        ],
        "labels": [{"value": 1, "name": "GTV", "color": [230, 85, 13], "terminology": None}],
        "spacing": [4.0, 4.0, 4.0],
        "image_size": [32, 32, 32],
        "field_of_view_mm": [200.0, 200.0, 200.0],
        "needs_region": True,
        "region_hint": "This model was trained on small images: place a box.",
        "files": {},
        "teachers": [],
        "training": {"dataset": "none", "training_patients": [], "tuning_patients": [], "validation_patients": []},
        "accuracy": {},
        "seconds": {},
        "intended_use": "tests",
    }
    folder = root / "tiny"
    write_model(folder, card, weights)
    assert json.loads((folder / "model.json").read_text(encoding="utf-8"))["files"]
    return folder
