"""What is done of a cross-validation: its run folders say so, and nothing else does."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_whole
from ..run_files import CONFIG_FILE, CROSSVAL_FILE, MANIFEST_FILE, read_manifest
from .arms import Crossval, Job
from .config import TrainConfig
from .equal_time import WANTED_FILE
from .run_folder import config_text, read_config, run_path

# What may differ between the machines that a cross-validation runs on, and changes nothing of what is compared.
MACHINE_KEYS = ("data", "splits", "kept_out", "device", "workers", "tensorboard", "compile")


def is_finished(run: str | Path) -> bool:
    """Whether a run has ended well."""
    return (run_path(run) / MANIFEST_FILE).is_file()


def started_config(run: str | Path) -> TrainConfig | None:
    """The configuration that a run was started with, if it was."""
    file = run_path(run) / CONFIG_FILE
    return read_config(file) if file.is_file() else None


def check_job(job: Job) -> None:
    """Refuses a job whose run folder is damaged or belongs to another configuration; where the data lies may differ.

    Raises:
        InputError: naming the file, or the job and the keys.
    """
    if is_finished(job.run):
        read_manifest(run_path(job.run))
    found = started_config(job.run)
    if found is None:
        return
    free = (*MACHINE_KEYS, *(("max_steps", "max_epochs") if job.seconds_of else ()))
    theirs = asdict(found)
    differing = [key for key, value in asdict(job.config).items() if key not in free and value != theirs[key]]
    if differing:
        raise InputError(
            f"{run_path(job.run)} was started with another configuration (different: {', '.join(differing)}): give the "
            "cross-validation another 'run', or remove that folder to train it again."
        )


def claim_job(job: Job) -> list[str]:
    """Writes the configuration of a job into its run folder; returns the arguments of Python that start it or go on.

    A run that was begun on another machine goes on with this one's paths.
    """
    folder = run_path(job.run)
    folder.mkdir(parents=True, exist_ok=True)
    found = started_config(job.run)
    if job.seconds_of and not found:
        write_whole(folder / WANTED_FILE, config_text(job.config))
        return ["-m", "TeachFormerCore.training.equal_time", str(folder), job.seconds_of.run]
    config = replace(found, **{key: getattr(job.config, key) for key in MACHINE_KEYS}) if found else job.config
    write_whole(folder / CONFIG_FILE, config_text(config))
    command = "distill" if config.teachers else "train"
    return ["-m", "TeachFormerCore", command, "--config", str(folder / CONFIG_FILE)]


def write_crossval(crossval: Crossval, jobs: Sequence[Job]) -> Path:
    """Writes ``crossval.json``: what belongs together, for the report.

    Each ``run`` is as in its configuration; its last part is the folder beside this file.
    """
    folder = run_path(crossval.name)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "name": crossval.name,
        "protocol": protocol_of(crossval),
        "folds": crossval.folds,
        "seeds": crossval.seeds,
        "base": crossval.base,
        "arms": crossval.described,
        "configs": {job.arm: asdict(job.config) for job in reversed(jobs)},  # of the first job of each
        "jobs": [{"arm": job.arm, "fold": job.fold, "seed": job.seed, "run": job.run} for job in jobs],
    }
    file = folder / CROSSVAL_FILE
    write_whole(file, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return file


def protocol_of(crossval: Crossval) -> str:
    """sha256 of what all arms share: the base configuration and the cases of the folds."""
    base = {key: value for key, value in crossval.base.items() if key not in (*MACHINE_KEYS, "run", "fold", "seed")}
    splits = crossval.base["splits"]
    cases: Any = json.loads(Path(splits).read_text(encoding="utf-8")) if splits else None
    return hashlib.sha256(json.dumps([base, cases], sort_keys=True).encode()).hexdigest()
