"""Distillation from cached teachers end to end: what the manifest says, what runs share, and real kills."""

import csv
import json
import os
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
from untrained import untrained_run

from TeachFormerCore.data.augmentation import AugmentationConfig
from TeachFormerCore.errors import InputError
from TeachFormerCore.training import views
from TeachFormerCore.training.config import DistillationConfig, TeacherConfig, TrainConfig
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]
CACHED = DistillationConfig(mode="balanced", teacher_outputs="cached", cached_views=2)


@pytest.fixture
def teachers(config: Make, tmp_path: Path) -> list[TeacherConfig]:
    """Two runs of fold 0, of two widths, that ended before their first step."""
    return [
        TeacherConfig(run=str(untrained_run(config(
            run=str(tmp_path / f"teacher{filters}"), network_arguments={"filters": filters, "transformer_depth": 4}
        ))))
        for filters in (3, 4)
    ]  # fmt: skip


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def entries(root: Path) -> list[Path]:
    return sorted(root.glob("runs/teacher_maps/*/*.safetensors"))


def test_two_teachers_weighted_calibrated_and_cached(
    config: Make, teachers: list[TeacherConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHFORMER_RUNS", str(tmp_path / "runs"))
    tapped = [replace(teachers[0], taps={"coarse_tap": "mpe"}), teachers[1]]
    settings = replace(CACHED, teacher_weighting="tune_dice", calibrate=True)
    made = config(run="student", teachers=tapped, distillation=settings, max_steps=2)
    manifest = manifest_of(train(made))
    dice = [record["tune"]["dice"] for record in manifest["teachers"]]
    weights = [record["weight"] for record in manifest["teachers"]]
    assert weights == pytest.approx([value / sum(dice) for value in dice], abs=1e-5)
    for record, taps in zip(manifest["teachers"], ({"coarse_tap": "mpe"}, {}), strict=True):
        assert record["taps"] == taps
        assert record["network"]["arguments"].items() >= taps.items()
        assert record["temperature"] != 1
        assert record["tune"]["ece_calibrated"] < record["tune"]["ece"]
    cache = manifest["teacher_cache"]
    training = manifest["patients"]["training"]
    assert cache["views_per_case"] == 2
    assert len(entries(tmp_path)) == 3 * 2 * len(training)
    assert {file.name.partition("_")[0] for file in entries(tmp_path)} == set(training)  # nobody else's image
    assert {file.parent.name for file in entries(tmp_path)} == set(cache["folders"])

    # Another student of the second teacher alone, with its own temperature, finds views and maps there.
    before = {file: file.stat().st_mtime_ns for file in entries(tmp_path)}
    train(replace(made, run="second", teachers=teachers[1:], network_arguments={"filters": 3}))
    assert {file: file.stat().st_mtime_ns for file in entries(tmp_path)} == before


def test_the_cached_terms_are_the_online_ones(
    config: Make, teachers: list[TeacherConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one view without symmetries but the identity: the same views, online through their draws."""
    monkeypatch.setenv("TEACHFORMER_RUNS", str(tmp_path / "runs"))
    drawn = views.Views.draw
    monkeypatch.setattr(views.Views, "draw", lambda self, epoch, case: drawn(self, 0, case))
    settings = replace(CACHED, cached_views=1, quarter_turns=False)
    common = {"teachers": teachers, "max_steps": 2, "augmentation": AugmentationConfig(flip=0.0), "precision": "fp32"}
    rows = []
    for mode in ("cached", "online"):
        made = config(run=mode, distillation=replace(settings, teacher_outputs=mode), **common)
        with (train(made) / "metrics.csv").open(newline="", encoding="utf-8") as stream:
            rows += [{name: float(v) for name, v in row.items() if "train_" in name} for row in csv.DictReader(stream)]
    cached, online = rows
    assert set(cached) >= {"train_dice", "train_similarity_coarse", "train_similarity_fine", "train_divergence"}
    assert cached == pytest.approx(online, rel=2e-3)


def test_a_limit_is_refused_before_the_run(config: Make, teachers: list[TeacherConfig], tmp_path: Path) -> None:
    made = config(run=str(tmp_path / "student"), teachers=teachers, distillation=replace(CACHED, cache_gigabytes=0.001))
    with pytest.raises(InputError, match=r"needs 0\.01 GB \(5 cases x 2 views .*lower distillation\.cached_views"):
        train(made)
    assert not (tmp_path / "student").exists()


def test_killed_while_caching_and_while_training_then_the_same_student(
    config: Make, teachers: list[TeacherConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHFORMER_RUNS", str(tmp_path / "undisturbed" / "runs"))
    settings = replace(CACHED, cached_views=8)
    chosen = {"teachers": teachers[:1], "distillation": settings, "max_steps": 10, "check_every": 100}
    undisturbed = train(config(run="student", **chosen))
    killed = tmp_path / "killed"
    file = tmp_path / "killed.yaml"
    file.write_text(yaml.safe_dump(asdict(config(run="student", **chosen))), encoding="utf-8")
    command = [sys.executable, "-m", "TeachFormerCore", "distill", "--config", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TEACHFORMER_RUNS": str(killed / "runs")}
    metrics = killed / "runs" / "student" / "metrics.csv"

    def run_until(reached: Callable[[], bool]) -> None:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        while not reached():
            assert process.poll() is None, "it finished before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()

    run_until(lambda: len(entries(killed)) > 10)
    assert 10 < len(entries(killed)) < 2 * 5 * 8
    assert not metrics.exists()
    run_until(lambda: metrics.exists() and len(metrics.read_text(encoding="utf-8").splitlines()) > 2)
    assert len(entries(killed)) == 2 * 5 * 8
    torn = entries(killed)[20]
    torn.write_bytes(torn.read_bytes()[:-7])
    monkeypatch.setenv("TEACHFORMER_RUNS", str(killed / "runs"))
    train(config(run="student", **chosen))
    ours, theirs = (load_file(run / "weights.safetensors") for run in (undisturbed, metrics.parent))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert metrics.read_text(encoding="utf-8") == (undisturbed / "metrics.csv").read_text(encoding="utf-8")
    pairs = zip(entries(tmp_path / "undisturbed"), entries(killed), strict=True)
    assert all(a.read_bytes() == b.read_bytes() for a, b in pairs)
