"""Does a teacher's knowledge arrive? Synthetic, with a known answer.

The teacher learns from true outlines of balls. The student is given the same images with outlines displaced at random
by several voxels, so that it cannot know better from its labels; the kept-out cases have true outlines.
"""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from TeachFormerCore.data.prepared import PreparedData, open_prepared
from TeachFormerCore.training.config import DistillationConfig, OptimiserConfig, TeacherConfig, TrainConfig
from TeachFormerCore.training.train import train

MARGIN = 0.1  # Dice, on the mean of the kept-out cases


def displaced_labels(prepared: PreparedData, folder: Path, *, kept_true: set[str]) -> Path:
    """A copy of the prepared cases whose labels are displaced by 4 voxels in a random direction along each axis."""
    shutil.copytree(prepared.folder, folder)
    random = np.random.default_rng(0)
    for case in prepared.cases:
        arrays = load_file(folder / f"{case}.safetensors")
        shift = random.choice([-4, 4], 3)
        if case not in kept_true:
            arrays["label"] = np.ascontiguousarray(np.roll(arrays["label"], shift, (0, 1, 2)))
        save_file(arrays, folder / f"{case}.safetensors")
    return folder


def mean_dice(folder: Path) -> float:
    with (folder / "per_case.csv").open(newline="") as stream:
        return float(np.mean([float(row["dice"]) for row in csv.DictReader(stream)]))


def test_a_distilled_student_beats_itself_alone(
    config: Callable[..., TrainConfig], prepared_folder: Path, tmp_path: Path
) -> None:
    """At equal steps, from equal weights, in the mean of two seeds."""
    learning = {"check_every": 1000, "optimiser": OptimiserConfig(learning_rate=1e-2)}
    teacher = train(config(run=str(tmp_path / "teacher"), max_steps=100, **learning))
    assert mean_dice(teacher) > 0.7
    equal = {
        "data": str(displaced_labels(open_prepared(prepared_folder), tmp_path / "wrong", kept_true={"P6", "P7"})),
        "network_arguments": {"filters": 4, "transformer_depth": 4},
        "max_steps": 60,
        "check_every": 1000,
        "optimiser": OptimiserConfig(learning_rate=5e-3),
    }
    teaching = {"teachers": [TeacherConfig(run=str(teacher))], "distillation": DistillationConfig(divergence=10.0)}
    gains = []
    for seed in (0, 5):
        alone = train(config(run=str(tmp_path / f"alone{seed}"), seed=seed, **equal))
        distilled = train(config(run=str(tmp_path / f"distilled{seed}"), seed=seed, **equal, **teaching))
        gains.append(mean_dice(distilled) - mean_dice(alone))
    assert np.mean(gains) > MARGIN, gains
