"""Distillation end to end: a teacher's run teaches another one, honestly, and a killed one resumes bit for bit."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from TeachFormerCore.commands import main
from TeachFormerCore.errors import InputError
from TeachFormerCore.training.config import DistillationConfig, TeacherConfig, TrainConfig
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]


@pytest.fixture
def teacher(config: Make, tmp_path: Path) -> Path:
    """A finished run of fold 0, twice as wide as the students."""
    return train(config(run=str(tmp_path / "teacher"), network_arguments={"filters": 4, "transformer_depth": 4}))


def student(config: Make, teacher: Path, **changes: object) -> TrainConfig:
    return config(run=str(teacher.parent / "student"), teachers=[TeacherConfig(run=str(teacher))], **changes)


@pytest.mark.parametrize("mode", ["paper", "balanced"])
def test_a_student_learns_from_a_run(config: Make, teacher: Path, mode: str) -> None:
    folder = train(student(config, teacher, distillation=DistillationConfig(mode=mode)))
    with (folder / "metrics.csv").open(newline="") as stream:
        first = next(iter(csv.DictReader(stream)))
    for term in ("dice", "focal", "similarity_coarse", "similarity_fine", "divergence"):
        assert float(first[f"train_{term}"]) > 0
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    theirs = json.loads((teacher / "manifest.json").read_text(encoding="utf-8"))
    assert [record["weights_sha256"] for record in manifest["teachers"]] == [theirs["weights_sha256"]]
    assert manifest["teachers"][0]["training_patients"] == theirs["patients"]["training"]
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(name.startswith("student.") for name in checkpoint["task"])
    assert set(load_file(folder / "weights.safetensors")) == {n.removeprefix("student.") for n in checkpoint["task"]}


def test_a_leaking_teacher_is_refused_and_the_patient_named(config: Make, teacher: Path) -> None:
    """Fold 1 keeps out P0 and P1, on which the teacher of fold 0 was trained or tuned."""
    with pytest.raises(InputError, match=r"saw the patient P[01].*keeps out"):
        train(student(config, teacher, fold=1))


def test_a_student_does_not_go_on_with_another_teacher(config: Make, teacher: Path) -> None:
    folder = train(student(config, teacher))
    (folder / "manifest.json").unlink()  # as if it had broken off
    shutil.rmtree(teacher)
    train(config(run=str(teacher), max_steps=2))
    with pytest.raises(InputError, match="begun with other teachers than are there now"):
        train(student(config, teacher))


def test_a_tuned_on_patient_leaks_too(config: Make, teacher: Path) -> None:
    file = teacher / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["patients"] = {"training": ["P0"], "tuning": ["P7"], "validation": []}
    file.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="saw the patient P7 in tuning"):
        train(student(config, teacher))


def test_teachers_that_cannot_teach_are_refused(config: Make, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        train(config(run=str(tmp_path / "s"), teachers=[TeacherConfig(run="absent")]))
    with pytest.raises(InputError, match="weight of a teacher must be positive"):
        config(teachers=[TeacherConfig(run="x", weight=-1.0)])
    file = teacher / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(manifest | {"config": manifest["config"] | {"spacing": [1.0, 1.0, 1.0]}}))
    with pytest.raises(InputError, match="trained with spacing"):
        train(student(config, teacher))
    file.write_text(json.dumps(manifest))
    (teacher / "weights.safetensors").write_bytes(b"changed")
    with pytest.raises(InputError, match="not the file the teacher's manifest"):
        train(student(config, teacher))


def test_the_command_takes_a_configuration_with_teachers(config: Make, teacher: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    made = student(config, teacher, max_steps=2)
    file.write_text(yaml.safe_dump(asdict(made)))
    assert main(["distill", "--config", str(file)]) == 0
    assert (Path(made.run) / "per_case.csv").exists()
    file.write_text(yaml.safe_dump(asdict(replace(made, teachers=[]))))
    assert main(["distill", "--config", str(file)]) == 2


def test_kill_9_then_the_same_student(config: Make, teacher: Path, tmp_path: Path) -> None:
    chosen = {"max_steps": 12, "check_every": 2}
    undisturbed = train(replace(student(config, teacher, **chosen), run=str(tmp_path / "undisturbed")))
    killed = replace(student(config, teacher, **chosen), run=str(tmp_path / "killed"))
    file = tmp_path / "killed.yaml"
    file.write_text(yaml.safe_dump(asdict(killed)))
    command = [sys.executable, "-m", "TeachFormerCore", "distill", "--config", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    metrics = tmp_path / "killed" / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text(encoding="utf-8").splitlines()) > 3):
        assert process.poll() is None, "it finished before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    ours, theirs = (load_file(run / "weights.safetensors") for run in (undisturbed, tmp_path / "killed"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert metrics.read_text(encoding="utf-8") == (undisturbed / "metrics.csv").read_text(encoding="utf-8")
