"""The run folder: configuration, manifest, figures, checkpoints, weights; one configuration per folder."""

import json
import platform
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..errors import InputError
from ..files import write_whole
from ..paths import runs_folder
from ..versions import installed_version
from .config import TeacherConfig, TrainConfig

CONFIG_FILE = "config.yaml"
MANIFEST_FILE = "manifest.json"
METRICS_FILE = "metrics.csv"
PER_CASE_FILE = "per_case.csv"
WEIGHTS_FILE = "weights.safetensors"
PREDICTIONS_FOLDER = "predictions"
KEPT_OUT_FILE = "kept_out.csv"
KEPT_OUT_FOLDER = "predictions_kept_out"
CHECKPOINT = Path("checkpoints") / "last.ckpt"


def run_path(run: str | Path) -> Path:
    """The folder of a run: under the runs folder unless absolute."""
    return runs_folder() / run


def claim_run(config: TrainConfig) -> Path:
    """Makes the run's folder with its resolved configuration, or checks that the folder has the same one.

    Keys that the folder's configuration does not have, because an earlier version wrote it, count at their defaults.

    Raises:
        InputError: the folder belongs to another configuration.
    """
    folder = run_path(config.run)
    file = folder / CONFIG_FILE
    wanted = json.loads(json.dumps(asdict(config)))
    if file.exists():
        found = _completed(yaml.safe_load(file.read_text(encoding="utf-8")), TrainConfig)
        found["teachers"] = [_completed(teacher, TeacherConfig) for teacher in found["teachers"]]
        if found != wanted:
            differing = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
            raise InputError(
                f"The run {folder} was started with another configuration (different: {', '.join(differing)}): "
                "choose another 'run', or start it with its own config.yaml to resume."
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(file, config_text(config))
    return folder


def config_text(config: TrainConfig) -> str:
    """A configuration as YAML, every key of it."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(config))), sort_keys=False)


def _completed(found: dict[str, Any], config_class: type) -> dict[str, Any]:
    """Written values of a configuration, and the defaults of the keys that are not written."""
    values = dict(found)
    for key in fields(config_class):
        default = key.default if key.default_factory is MISSING else key.default_factory()
        if is_dataclass(default):
            values[key.name] = _completed(found.get(key.name, {}), type(default))
        elif default is not MISSING:
            values.setdefault(key.name, default)
    return values


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
    content = {"versions": installed_versions(), **content}
    write_whole(folder / MANIFEST_FILE, json.dumps(content, indent=1, allow_nan=False))


def installed_versions() -> dict[str, str | None]:
    """What makes a run, with its version."""
    packages = ("torch", "numpy", "pytorch-lightning", "safetensors", "SimpleITK")
    installed = {name: installed_version(name) for name in packages}
    return {"TeachFormer": __version__, "python": platform.python_version(), **installed}
