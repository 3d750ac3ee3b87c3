"""Seconds per step: measured by training a few steps, or told by the manifests of finished runs."""

import contextlib
import io
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..devices import choose_device, device_name
from ..errors import InputError
from ..run_files import MANIFEST_FILE, read_manifest
from .config import TrainConfig
from .run_folder import run_path

# The difference between two short trainings leaves out what a training costs once: start, cache, final scores.
SHORT_STEPS, LONG_STEPS = 2, 8

Pace = tuple[Any, ...]


def pace_key(config: TrainConfig, teachers: Sequence[Mapping[str, Any]], device: tuple[str, str]) -> Pace:
    """What the time of a step depends on, comparable.

    Args:
        config: of the training.
        teachers: name and arguments of each teacher's network, as manifests have them.
        device: its type and its name.
    """
    facts = {
        "network": [config.network, config.network_arguments],
        "teachers": [[teacher["name"], teacher["arguments"]] for teacher in teachers],
        "form": [config.distillation.mode, getattr(config.distillation, "teacher_outputs", "online")],
        "size": [config.patch_size, list(config.window), config.batch_size, len(config.channels)],
        "speed": [config.precision, config.compile, config.workers],
        "device": device,
    }
    return (json.dumps(facts, sort_keys=True, default=str),)


def paces_of_runs(folders: Sequence[Path]) -> dict[Pace, float]:
    """Mean seconds per step of the finished runs in some folders."""
    from .command_line import config_from

    found: dict[Pace, list[float]] = {}
    for manifest_file in [file for folder in folders for file in sorted(folder.glob(f"*/{MANIFEST_FILE}"))]:
        with contextlib.suppress(InputError, KeyError, TypeError, ValueError):  # a run of another version
            manifest = read_manifest(manifest_file.parent)
            config = config_from(manifest["config"])
            device = (manifest["device"], manifest.get("device_name", ""))
            key = pace_key(config, [teacher["network"] for teacher in manifest["teachers"]], device)
            if manifest["seconds_per_step"]:
                found.setdefault(key, []).append(manifest["seconds_per_step"])
    return {key: statistics.fmean(values) for key, values in found.items()}


def this_device(config: TrainConfig) -> tuple[str, str]:
    """Type and name of the device that a configuration would compute on here."""
    device = choose_device(config.device)
    return device.type, device_name(device)


def measured_paces(configs: Sequence[TrainConfig], *, every: Mapping[str, TrainConfig], rounds: int = 1) -> list[float]:
    """Seconds per step of some trainings, measured here and now by training a few steps in a folder that is removed.

    They take turns, so that what else the machine does slows all alike. A teacher whose run is not finished is one
    that was trained for a step.

    Args:
        configs: what to measure.
        every: the configuration of each run that may be a teacher.
        rounds: turns; the fastest counts.
    """
    from .datasource import prepared_data

    data = {config.run: str(prepared_data(config).folder.absolute()) for config in configs}
    with _scratch_runs() as runs:
        here = {config.run: _with_teachers(config, every, data[config.run], runs) for config in configs}
        seconds: dict[str, list[float]] = {config.run: [] for config in configs}
        for turn in range(rounds):
            for config in configs:
                short, long = (_fit_seconds(here[config.run], steps, turn) for steps in (SHORT_STEPS, LONG_STEPS))
                seconds[config.run].append((long - short) / (LONG_STEPS - SHORT_STEPS))
    return [max(1e-4, min(seconds[config.run])) for config in configs]


def _with_teachers(config: TrainConfig, every: Mapping[str, TrainConfig], data: str, finished: Path) -> TrainConfig:
    """The configuration with teachers that exist: finished runs by their place, others trained for a step."""
    from .train import train

    teachers = []
    for teacher in config.teachers:
        folder = finished / teacher.run
        if not (folder / MANIFEST_FILE).is_file():
            if teacher.run not in every:
                raise InputError(f"The teacher {teacher.run} is neither finished nor part of the cross-validation.")
            made = _with_teachers(every[teacher.run], every, data, finished)
            with contextlib.redirect_stderr(io.StringIO()):
                folder = train(replace(_short(made, 1), run=f"teacher/{Path(teacher.run).name}"))
        teachers.append(replace(teacher, run=str(folder.absolute())))
    return replace(config, teachers=teachers, data=data)


def _fit_seconds(config: TrainConfig, steps: int, turn: int) -> float:
    from .train import train

    name = f"{Path(config.run).name}_{steps}_{turn}"
    with contextlib.redirect_stderr(io.StringIO()):
        manifest = read_manifest(train(replace(_short(config, steps), run=name)))
    return float(manifest["seconds_per_step"]) * steps


def _short(config: TrainConfig, steps: int) -> TrainConfig:
    # What is done once, before the first step, is done as briefly as possible.
    teaching = replace(config.distillation, cached_views=1, teacher_weighting="fixed", calibrate=False)
    short = replace(config, max_steps=steps, max_epochs=None, check_every=10**6, patience=None, tensorboard=False)
    return replace(short, distillation=teaching)


@contextlib.contextmanager
def _scratch_runs() -> Iterator[Path]:
    """An empty runs folder for what is measured; gives the real one."""
    real, named = run_path("."), os.environ.get("TEACHFORMER_RUNS")
    with tempfile.TemporaryDirectory(prefix="teachformer-pace-") as scratch:
        os.environ["TEACHFORMER_RUNS"] = scratch
        try:
            yield real.absolute()
        finally:
            if named is None:
                del os.environ["TEACHFORMER_RUNS"]
            else:
                os.environ["TEACHFORMER_RUNS"] = named
