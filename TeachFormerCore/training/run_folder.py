"""The run folder: configuration, manifest, figures, checkpoints, weights; one configuration per folder."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..errors import InputError
from ..files import write_whole
from ..paths import runs_folder
from ..run_files import CONFIG_FILE, MANIFEST_FILE, read_yaml
from ..versions import installed_version
from .command_line import config_from
from .config import TrainConfig

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
    if file.exists():
        if differing := differing_keys(config, folder):
            raise InputError(
                f"The run {folder} was started with another configuration (different: {', '.join(differing)}): "
                "choose another 'run', or start it with its own config.yaml to resume."
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, config_text(config))
    return folder


def differing_keys(config: TrainConfig, folder: Path) -> list[str]:
    """The keys in which a configuration differs from that which a run's folder was started with."""
    ours, theirs = (json.loads(json.dumps(asdict(each))) for each in (config, read_config(folder / CONFIG_FILE)))
    return sorted(key for key in ours if ours[key] != theirs[key])


def config_text(config: TrainConfig) -> str:
    """A configuration as YAML, every key of it."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(config))), sort_keys=False)


def read_config(file: Path) -> TrainConfig:
    """The configuration of a run from its file; see :func:`written_config`."""
    return written_config(read_yaml(file), file)


def written_config(values: Mapping[str, Any], file: Path) -> TrainConfig:
    """The configuration that a run's file holds; keys that an earlier version did not write have their defaults.

    Raises:
        InputError: it cannot be used; the file is named.
    """
    try:
        return config_from(values)
    except InputError as error:
        raise InputError(f"{file}: {error} Copy it again, or remove its folder to train the run again.") from error


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes the manifest whole, with the versions that made the run."""
    content = {"versions": installed_versions(), **content}
    write_whole(folder / MANIFEST_FILE, json.dumps(content, indent=1, allow_nan=False))


def installed_versions() -> dict[str, str | None]:
    """What makes a run, with its version."""
    packages = ("torch", "numpy", "pytorch-lightning", "safetensors", "SimpleITK")
    installed = {name: installed_version(name) for name in packages}
    return {"TeachFormer": __version__, "python": platform.python_version(), **installed}
