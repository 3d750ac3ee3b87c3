"""What is done of a cross-validation: its run folders say so, and nothing else does."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_whole
from ..run_files import CONFIG_FILE, CROSSVAL_FILE, MANIFEST_FILE, misfit, read_json, read_manifest
from .arms import Crossval, Job
from .config import TrainConfig
from .equal_time import WANTED_FILE, timed_by
from .run_folder import config_text, read_config, run_path
from .run_lock import RunLock

# What may differ between the machines that a cross-validation runs on, and changes nothing of what is compared.
MACHINE_KEYS = ("data", "splits", "kept_out", "device", "workers", "tensorboard", "compile")
NOT_SHARED = (*MACHINE_KEYS, "run", "fold", "seed")  # the other keys of the base are what all arms share
CROSSVAL_LOCK = ".crossval.lock"
CROSSVAL_SHAPE = {
    "base": {},
    "arms": {},
    "configs": {},
    "jobs": [{"arm": str, "fold": (int, str), "seed": int, "run": str}],
}


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
    if timed_by(run_path(job.run)) != (job.seconds_of.run if job.seconds_of else None):
        differing.append("seconds_of")
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

    Each ``run`` is as in its configuration; its last part is the folder beside this file. Runs that are there of
    earlier commands, with other seeds or arms, stay in it.

    Raises:
        InputError: such runs are of another configuration.
    """
    file = run_path(crossval.name) / CROSSVAL_FILE
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
    while (lock := RunLock.take(file.parent, CROSSVAL_LOCK)) is None:  # shards that start together write in turns
        time.sleep(0.05)
    with lock:
        write_whole(file, json.dumps(_with_earlier(content, file), indent=1, allow_nan=False) + "\n")
    return file


def _with_earlier(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """What is planned now and, of what the file holds, the other jobs whose run folders exist, with their arms."""
    try:
        earlier = read_json(file) if file.is_file() else {}
    except InputError:
        return content  # it is damaged, and written anew
    if misfit(earlier, CROSSVAL_SHAPE):
        return content
    content = json.loads(json.dumps(content))  # comparable with what was read
    planned = {Path(job["run"]).name for job in content["jobs"]}
    names = {Path(job["run"]).name: job for job in earlier["jobs"] if job["arm"] in earlier["arms"]}
    kept = [job for name, job in names.items() if name not in planned and (file.parent / name).is_dir()]
    if not kept:
        return content
    ours, theirs = content["base"], earlier["base"]
    differing = [key for key in ours if key in theirs and key not in NOT_SHARED and ours[key] != theirs[key]]
    arms = list(dict.fromkeys(job["arm"] for job in kept))
    for arm in arms:
        described, before = content["arms"].get(arm), earlier["arms"][arm]
        if described is not None and _changes(described) != _changes(before):
            differing.append(f"the arm '{arm}'")
    if differing:
        raise InputError(
            f"{file.parent} has runs that are not part of this command ({Path(kept[0]['run']).name}, {len(kept)} in "
            f"all), of another configuration (different: {', '.join(differing)}): give the cross-validation another "
            "'run', or remove their folders."
        )
    return content | {
        "folds": list(dict.fromkeys([*content["folds"], *(job["fold"] for job in kept)])),
        "seeds": list(dict.fromkeys([*content["seeds"], *(job["seed"] for job in kept)])),
        "arms": content["arms"] | {arm: earlier["arms"][arm] for arm in arms if arm not in content["arms"]},
        "configs": {arm: earlier["configs"][arm] for arm in arms if arm in earlier["configs"]} | content["configs"],
        "jobs": [*content["jobs"], *kept],
    }


def _changes(described: dict[str, Any]) -> dict[str, Any]:
    """What an arm changes: not how often it is trained."""
    return {key: value for key, value in described.items() if key not in ("folds", "seeds")}


def protocol_of(crossval: Crossval) -> str:
    """sha256 of what all arms share: the base configuration and the cases of the folds."""
    base = {key: value for key, value in crossval.base.items() if key not in NOT_SHARED}
    splits = crossval.base["splits"]
    cases: Any = json.loads(Path(splits).read_text(encoding="utf-8")) if splits else None
    return hashlib.sha256(json.dumps([base, cases], sort_keys=True).encode()).hexdigest()
