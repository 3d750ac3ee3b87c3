"""The run folder: configuration, manifest, figures, checkpoints, weights; one configuration per folder."""

import json
import os
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..errors import InputError
from ..paths import runs_folder
from .config import TrainConfig

CONFIG_FILE = "config.yaml"
MANIFEST_FILE = "manifest.json"
METRICS_FILE = "metrics.csv"
PER_CASE_FILE = "per_case.csv"
WEIGHTS_FILE = "weights.safetensors"
CHECKPOINT = Path("checkpoints") / "last.ckpt"


def run_path(run: str | Path) -> Path:
    """The folder of a run: under the runs folder unless absolute."""
    return runs_folder() / run


def claim_run(config: TrainConfig) -> Path:
    """Makes the run's folder with its resolved configuration, or checks that the folder has the same one.

    Raises:
        InputError: the folder belongs to another configuration.
    """
    folder = run_path(config.run)
    file = folder / CONFIG_FILE
    wanted = json.loads(json.dumps(asdict(config)))
    if file.exists():
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        if found != wanted:
            differing = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
            raise InputError(
                f"The run {folder} was started with another configuration (different: {', '.join(differing)}): "
                "choose another 'run', or start it with its own config.yaml to resume."
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, yaml.safe_dump(wanted, sort_keys=False))
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        InputError: there is none: not a run, or not finished.
    """
    try:
        return json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no finished run (no {MANIFEST_FILE}): train it to the end first, the same command resumes."
        ) from error


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes the manifest whole, with the versions that made the run."""
    packages = ("torch", "numpy", "pytorch-lightning", "safetensors", "SimpleITK")
    installed = {name: _version(name) for name in packages}
    versions = {"TeachFormer": __version__, "python": platform.python_version(), **installed}
    write_whole(folder / MANIFEST_FILE, json.dumps({"versions": versions, **content}, indent=1, allow_nan=False))


def write_whole(file: Path, text: str) -> None:
    """Writes a text file so that it is never seen half-written."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
