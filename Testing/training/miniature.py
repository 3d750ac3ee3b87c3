"""A complete cross-validation in miniature, in 2D: 2 teachers, 2 arms, 2 folds, with a known answer.

The teachers learn from true outlines of discs. The students are given the same images with outlines displaced at random
by several pixels, so that they cannot know better from their labels; the kept-out cases have true outlines. A student
that listens to its teachers must do better there than the same student alone.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from plans import write_ct_pet_plan

from TeachFormerCore.training.arms import make_jobs, parse_crossval
from TeachFormerCore.training.job_queue import JobQueue
from TeachFormerCore.training.job_state import write_crossval

TRAINED = [f"P{number:02}" for number in range(8)]
KEPT_OUT = [["P08", "P09", "P10"], ["P11", "P12", "P13"]]
PATIENTS = [*TRAINED, *KEPT_OUT[0], *KEPT_OUT[1]]
TESTED = ["P14", "P15", "P16"]  # kept out of both folds
SIZE, DISPLACEMENT = 32, 4


def write_discs(folder: Path, patients: list[str], *, displaced: bool) -> Path:
    """Prepared cases of one slice each: bright discs in noise; with the labels of ``TRAINED`` displaced, or true."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    random = np.random.default_rng(int(patients[0][1:]))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for patient in patients:
        centre, radius = random.uniform(10, 22, 2), random.uniform(4, 7)
        label = (np.hypot(rows - centre[0], columns - centre[1]) < radius).astype(np.uint8)
        image = np.stack([label * 0.8, label * 1.5]) + random.normal(0, 0.1, (2, SIZE, SIZE))
        shift = random.choice([-DISPLACEMENT, DISPLACEMENT], 2)
        if displaced and patient in TRAINED:
            label = np.roll(label, shift, (0, 1))
        arrays = {"image": image[:, None].astype(np.float16), "label": np.ascontiguousarray(label[None])}
        save_file(arrays, folder / f"{patient}.safetensors")
    write_ct_pet_plan(folder, patients=patients, label="disc", extent=(128.0, 128.0, 4.0))
    return folder


def write_miniature(folder: Path, **changes: Any) -> Path:
    """The data, the splits and the configuration in a folder; the configuration's file."""
    folder.mkdir(parents=True, exist_ok=True)
    true = write_discs(folder / "true", PATIENTS, displaced=False)
    splits = folder / "splits.json"
    splits.write_text(json.dumps([{"train": TRAINED, "val": val} for val in KEPT_OUT]), encoding="utf-8")
    config = {
        "data": str(write_discs(folder / "displaced", PATIENTS, displaced=True)),
        "kept_out": str(write_discs(folder / "tested", TESTED, displaced=False)),
        "run": str(folder / "miniature"),
        "network": "h_denseformer_light",
        "network_arguments": {"filters": 4, "transformer_depth": 4},
        "channels": ["CT", "PET"],
        "patch_size": [SIZE, SIZE],
        "spacing": [4.0, 4.0, 4.0],
        "splits": str(splits),
        "max_steps": 28,
        "batch_size": 4,
        "check_every": 1000,
        "optimiser": {"learning_rate": 1e-2},
        "augmentation": {"cut": 0.0, "shift": 0.1, "scale": 0.0, "rotation_degrees": 0.0},
        "device": "cpu",
        "precision": "fp32",
        "folds": [0, 1],
        "seeds": [0],
        "arms": {
            "h_denseformer": {"data": str(true), "network_arguments": {"filters": 8, "transformer_depth": 4}},
            "second_teacher": {"data": str(true), "network_arguments": {"filters": 6, "transformer_depth": 4}},
            "student": {},
            "student_from_all": {
                "teachers": ["h_denseformer", "second_teacher"],
                "distillation": {"mode": "balanced", "similarity_coarse": 0.1, "similarity_fine": 0.1, "divergence": 5},
            },
        },
    } | changes
    file = folder / "miniature.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return file


def run_miniature(folder: Path) -> Path:
    """Trains it; the folder of the cross-validation."""
    import TeachFormerCore.training.train  # noqa: F401  imported once, for all jobs

    crossval = parse_crossval(["--config", str(write_miniature(folder))])
    jobs = make_jobs(crossval)
    write_crossval(crossval, jobs)
    failed = ForkedQueue(jobs).run()
    assert not failed, failed
    return folder / "miniature"


class ForkedProcess:
    """What the queue needs of ``subprocess.Popen``, of a copy of this process that has everything imported."""

    def __init__(self, arguments: list[str], log: Any, environment: dict[str, str]) -> None:
        from TeachFormerCore.commands import main

        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 4
            try:
                os.setsid()
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                os.environ.update(environment)
                code = main(arguments[2:])  # after "-m", "TeachFormerCore"
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        return self._wait(0)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkedQueue(JobQueue):
    """The queue with processes that start in no time: importing PyTorch takes longer than a job of the miniature."""

    def launch(self, arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return ForkedProcess(arguments, options["stdout"], options["env"])  # type: ignore[return-value]
