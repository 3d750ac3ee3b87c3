"""A finished run again, from its manifest: the same data, splits and teachers or none, then the weights compared."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..devices import choose_device, device_name
from ..errors import InputError
from ..files import sha256_of
from ..run_files import MANIFEST_FILE, read_manifest
from .config import TrainConfig
from .datasource import fold_split, prepared_data
from .run_folder import WEIGHTS_FILE, installed_versions, run_path, written_config
from .train import describe_data, train


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of it.

    Attributes:
        original: folder of the run.
        repeated: folder of the new one.
        largest_difference: of two weights, 0 where every bit is the same.
        differing: names of the tensors that are not the same bit for bit.
    """

    original: Path
    repeated: Path
    largest_difference: float
    differing: list[str]


def reproduction_config(run: str, *, into: str | None = None, data: str | None = None) -> TrainConfig:
    """The configuration that does a finished run again, on its device and in its precision.

    Args:
        run: as in its configuration, or its folder.
        into: the new run; the old name with ``_reproduced`` unless given.
        data: where the data is, if not where it was.

    Raises:
        InputError: not a finished run, or data, splits or teachers are not what they were; it says which.
    """
    folder = run_path(run)
    manifest = read_manifest(folder)
    given = written_config(manifest["config"], folder / MANIFEST_FILE)
    config = replace(
        given,
        run=into or f"{run.rstrip('/')}_reproduced",
        data=data or given.data,
        precision=manifest["precision"],
        device=given.device if given.device != "auto" else manifest["device"],
    )
    if run_path(config.run).resolve() == folder.resolve():
        raise InputError(f"{folder} is the run itself: name another folder for the new one.")
    prepared = prepared_data(config)
    split = fold_split(config, prepared)
    now, then = describe_data(prepared, config, split), manifest["data"]
    if now["preparation"] != then["preparation"]:
        raise InputError(
            f"{prepared.folder} is not the data that {folder} was trained on ({then['dataset']}): its images, channels "
            "or preparation differ. Give the right folder with --data."
        )
    if now["split"] != then["split"]:
        raise InputError(
            f"{config.splits} does not give the cases of fold {config.fold} that {folder} was trained on: bring back "
            "the splits file of that time."
        )
    for record in manifest["teachers"]:
        weights = run_path(record["run"]) / WEIGHTS_FILE
        if not weights.is_file() or sha256_of(weights) != record["weights_sha256"]:
            raise InputError(f"{weights} is not the teacher that {folder} learned from: train that run again first.")
    return config


def differing_circumstances(run: str) -> list[str]:
    """Notices: what else is not as it was when the run was made, and may change the last digits."""
    manifest: dict[str, Any] = read_manifest(run_path(run))
    installed = installed_versions()
    notices = [
        f"{package} {installed.get(package)} here, {version} then"
        for package, version in manifest["versions"].items()
        if installed.get(package) != version
    ]
    here, then = device_name(choose_device(manifest["device"])), manifest.get("device_name", "")
    if here != then:
        notices.append(f"{here} computes here, {then or manifest['device']} did then")
    if (processes := manifest.get("processes", 1)) > 1:
        notices.append(f"one process computes here, {processes} shared each batch then, and their sums round otherwise")
    return notices


def reproduce(run: str, config: TrainConfig) -> Reproduction:
    """Trains it again with as many threads as then, and compares the weights."""
    threads = read_manifest(run_path(run)).get("threads")
    if threads:
        torch.set_num_threads(threads)  # sums of other parts round otherwise
    original, repeated = run_path(run), train(config)
    then, now = (load_file(folder / WEIGHTS_FILE) for folder in (original, repeated))
    differing = [name for name in then if not torch.equal(then[name], now[name])]
    largest = max((float((then[name].double() - now[name].double()).abs().max()) for name in differing), default=0.0)
    return Reproduction(original=original, repeated=repeated, largest_difference=largest, differing=differing)
