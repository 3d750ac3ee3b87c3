"""Training end to end on balls in noise: what it learns, writes, refuses, and how it resumes after a real kill."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from TeachFormerCore.data.splits import tune_patients
from TeachFormerCore.errors import InputError, TeachFormerError
from TeachFormerCore.training import checkpoint
from TeachFormerCore.training.config import DistillationConfig, LossConfig, OptimiserConfig, TeacherConfig, TrainConfig
from TeachFormerCore.training.module import TrainingModule
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_learns_and_writes_what_the_contract_says(config: Make) -> None:
    folder = train(config(max_steps=120, check_every=20, optimiser=OptimiserConfig(learning_rate=1e-2)))
    assert {file.name for file in folder.iterdir()} >= {
        "config.yaml", "manifest.json", "metrics.csv", "checkpoints", "per_case.csv", "weights.safetensors",
    }  # fmt: skip
    scores = {row["case"]: float(row["dice"]) for row in rows(folder / "per_case.csv")}
    assert set(scores) == {"P6", "P7"}
    assert min(scores.values()) > 0.7
    metrics = rows(folder / "metrics.csv")
    # Five training patients (one of six tunes) in whole batches of two: two steps an epoch.
    assert [int(row["step"]) for row in metrics] == list(range(2, 121, 2))
    assert [bool(row["choice_loss"]) for row in metrics] == [(n + 1) % 20 == 0 for n in range(60)]
    assert float(metrics[-1]["train_dice"]) < 0.5 * float(metrics[0]["train_dice"])


def test_the_manifest_says_who_was_seen(config: Make) -> None:
    manifest = json.loads((train(config()) / "manifest.json").read_text(encoding="utf-8"))
    tuned = tune_patients([f"P{n}" for n in range(6)], seed=0)
    assert manifest["patients"] == {
        "training": sorted({f"P{n}" for n in range(6)} - set(tuned)),
        "tuning": tuned,
        "validation": ["P6", "P7"],
    }
    assert manifest["steps"] == 6
    assert set(manifest["versions"]) >= {"TeachFormer", "torch", "python"}


def test_the_learning_rate_decays_polynomially(config: Make) -> None:
    metrics = rows(train(config(max_steps=8)) / "metrics.csv")
    expected = [1e-3 * (1 - step / 8) ** 0.9 for step in (2, 4, 6, 8)]
    assert [float(row["learning_rate"]) for row in metrics] == pytest.approx(expected, rel=1e-4)


def test_early_stop_keeps_the_best_weights(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice's loss is made to be best in epoch 2; with patience 3 the run ends after epoch 5."""
    from TeachFormerCore.training import case_scores

    losses = iter([5.0, 4.0, 1.0, 2.0, 3.0, 2.5, 9.0, 9.0] + [9.0] * 100)
    heads: list[torch.Tensor] = []

    def fake(self: object, network: torch.nn.Module, case: str, **options: object) -> case_scores.CaseScore:
        heads.append(network.state_dict()["head.weight"].clone())
        label = np.zeros((32, 32, 32), np.uint8)
        return case_scores.CaseScore(case=case, loss=next(losses), dice={"ball": 0.5}, label=label, logits=label[None])

    monkeypatch.setattr(case_scores.CaseEvaluator, "score", fake)
    folder = train(config(max_steps=None, max_epochs=50, patience=3))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["steps"] == 12
    assert manifest["best_epoch"] == 2
    torch.testing.assert_close(load_file(folder / "weights.safetensors")["head.weight"], heads[2])


def test_fold_all_trains_on_everyone_and_keeps_nobody_out(config: Make) -> None:
    manifest = json.loads((train(config(fold="all")) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["patients"]["validation"] == []
    assert len(manifest["patients"]["training"] + manifest["patients"]["tuning"]) == 8
    assert manifest["val_dice"] is None


def test_another_configuration_in_a_run_is_refused(config: Make) -> None:
    train(config())
    with pytest.raises(InputError, match="another configuration.*seed"):
        train(config(seed=1))


def test_a_finished_run_is_left_alone(config: Make) -> None:
    folder = train(config())
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    train(config())
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_a_term_that_is_not_finite_stops_the_run_by_name(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from TeachFormerCore.distillation import segmentation_loss

    calls = iter(range(100))
    plain = segmentation_loss.focal_loss

    def explode(*arguments: torch.Tensor, **options: float) -> torch.Tensor:
        return plain(*arguments, **options) * (float("nan") if next(calls) >= 3 else 1)

    monkeypatch.setattr(segmentation_loss, "focal_loss", explode)
    configuration = config(check_every=100)
    with pytest.raises(TeachFormerError, match="'focal' became nan at step 3") as caught:
        train(configuration)
    assert caught.value.exit_code == 4
    checkpoint = Path(configuration.run) / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["step"] == 2


def test_checkpoints_hold_nothing_that_needs_unpickling(config: Make) -> None:
    folder = train(config(patience=2, max_steps=None, max_epochs=3))
    torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("kills", [1, 2])
def test_kill_9_at_any_moment_then_the_same_weights(config: Make, tmp_path: Path, kills: int) -> None:
    """An undisturbed run and one killed at random moments end with the same weights, bit for bit, and one table."""
    chosen = {"max_steps": 24, "check_every": 5, "patience": 100}
    undisturbed = train(config(run=str(tmp_path / "undisturbed"), **chosen))
    killed = config(run=str(tmp_path / "killed"), **chosen)
    file = tmp_path / "killed.yaml"
    file.write_text(yaml.safe_dump(asdict(killed)))
    command = [sys.executable, "-m", "TeachFormerCore", "train", "--config", str(file)]
    generator = random.Random(kills)
    metrics = tmp_path / "killed" / "metrics.csv"
    for kill in range(kills):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        wanted = (kill + 1) * 12 // (kills + 1)  # epochs of the 12, then a random moment within the next
        while not (metrics.exists() and len(metrics.read_text(encoding="utf-8").splitlines()) > wanted):
            assert process.poll() is None, "it finished before it could be killed"
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed" / "manifest.json").exists(), "killed too late to prove anything"
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    ours, theirs = (load_file(run / "weights.safetensors") for run in (undisturbed, tmp_path / "killed"))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert metrics.read_text(encoding="utf-8") == (undisturbed / "metrics.csv").read_text(encoding="utf-8")
    assert (tmp_path / "killed" / "per_case.csv").read_text(encoding="utf-8") == (
        undisturbed / "per_case.csv"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("stopping", ["steps", "patience"])
def test_a_run_that_broke_off_while_scoring_ends_as_if_it_had_not(
    config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stopping: str
) -> None:
    """Its checkpoint is of the last step, and of the end that patience has made: nothing is left to train."""
    monkeypatch.setattr(checkpoint, "SHARE_OF_TIME", 1.0)  # after each epoch
    chosen: dict = {"max_steps": 6}
    if stopping == "patience":
        chosen = {"max_steps": 200, "patience": 1, "optimiser": OptimiserConfig(learning_rate=0.05)}
    undisturbed = train(config(run=str(tmp_path / "undisturbed"), **chosen))
    broken = config(run=str(tmp_path / "broken"), **chosen)

    def break_off(*_given: object) -> None:
        raise InputError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("TeachFormerCore.training.train.score_val_cases", break_off)
        with pytest.raises(InputError, match="the disk is full"):
            train(broken)
    train(broken)
    ours, theirs = (load_file(run / "weights.safetensors") for run in (undisturbed, tmp_path / "broken"))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    steps = [json.loads((tmp_path / run / "manifest.json").read_text())["steps"] for run in ("undisturbed", "broken")]
    assert steps[0] == steps[1]
    assert (steps[0] < 200) == (stopping == "patience") or steps[0] == 6
    for name in ("metrics.csv", "per_case.csv"):
        assert (tmp_path / "broken" / name).read_text() == (undisturbed / name).read_text()


def test_a_run_does_not_go_on_with_other_patients(config: Make, tmp_path: Path) -> None:
    """Regression: after a change of the splits file it trained on, and called its former training patients unseen."""
    folder = train(config())
    (folder / "manifest.json").unlink()  # as if it had broken off
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps([{"train": [f"P{n}" for n in range(2, 8)], "val": ["P0", "P1"]}]), encoding="utf-8")
    with pytest.raises(InputError, match="begun with other splits than are there now"):
        train(config())
    assert not (folder / "manifest.json").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "cut"])
def test_a_damaged_checkpoint_is_named(config: Make, content: bytes | str) -> None:
    folder = train(config())
    (folder / "manifest.json").unlink()
    file = folder / "checkpoints" / "last.ckpt"
    file.write_bytes(file.read_bytes()[:-500] if isinstance(content, str) else content)
    with pytest.raises(InputError, match=r"last.ckpt cannot be read \(.*remove it, and the run begins anew"):
        train(config())


def test_damaged_figures_are_named(config: Make) -> None:
    folder = train(config())
    (folder / "manifest.json").unlink()
    (folder / "metrics.csv").write_bytes(b"epoch,step\n\xff\xfe,x\n")
    with pytest.raises(InputError, match=r"metrics.csv is damaged .* remove it"):
        train(config())


def test_ctrl_c_ends_with_130_and_without_a_result(config: Make, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(asdict(config(max_steps=2000))))
    # A process started in the background may have inherited that SIGINT is ignored.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from TeachFormerCore.commands import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, "train", "--config", str(file)], stderr=subprocess.PIPE)
    metrics = tmp_path / "run" / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text(encoding="utf-8").splitlines()) > 2):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.decode().strip().endswith("cancelled")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patch_size": [48, 48, 40]}, "multiples of 16"),
        ({"patch_size": [16, 16, 16]}, "32 or more"),
        ({"max_steps": None}, "either max_steps or max_epochs"),
        ({"max_epochs": 3}, "either max_steps or max_epochs"),
        ({"splits": None}, "needs splits"),
        ({"spacing": [1.0, 0.0, 1.0]}, "three positive numbers"),
        ({"fold": "all", "protocol": "paper"}, "no"),
        ({"seed": -1}, "seed and workers"),
        ({"workers": -1}, "seed and workers"),
        ({"run": " "}, "run must name a folder"),
        ({"run": "../../elsewhere"}, "run must name a folder"),
        ({"optimiser": OptimiserConfig(learning_rate=float("nan"))}, "learning_rate must be positive"),
        ({"optimiser": OptimiserConfig(learning_rate=-1e-3)}, "learning_rate must be positive"),
        ({"optimiser": OptimiserConfig(weight_decay=-1.0)}, "weight_decay must not be negative"),
        ({"optimiser": OptimiserConfig(name="sgd", momentum=0.0)}, "momentum must lie between"),
        ({"optimiser": OptimiserConfig(power=-2.0)}, "power must not be negative"),
        ({"loss": LossConfig(dice=float("inf"))}, "weights in loss"),
        ({"loss": LossConfig(focal_gamma=0.5)}, "focal_gamma must be 0"),
        ({"loss": LossConfig(focal_gamma=-1.0)}, "focal_gamma must be 0"),
        ({"distillation": DistillationConfig(temperature=float("inf"))}, "temperature must be positive"),
        ({"teachers": [TeacherConfig(run="t", weight=float("nan"))]}, "weight of a teacher"),
        ({"protocol": "paper", "distillation": DistillationConfig(calibrate=True)}, "protocol 'paper' has none"),
        (
            {"protocol": "paper", "distillation": DistillationConfig(teacher_weighting="tune_dice")},
            "protocol 'paper' has none",
        ),
    ],
)
def test_configurations_that_cannot_be_right(config: Make, changes: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": "resnet"}, "no network 'resnet'"),
        ({"network_arguments": {"filter": 2}}, "does not take these arguments"),
        ({"fold": 7}, "no fold 7"),
        ({"channels": ["PET", "CT"]}, "prepared with the channels"),
        ({"spacing": [3.0, 3.0, 3.0]}, "prepared with the channels"),
        ({"data": "no_such_dataset"}, "No dataset 'no_such_dataset'"),
    ],
)
def test_configurations_that_fit_nothing_here(config: Make, changes: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        train(config(**changes))


def test_a_changed_plan_is_refused(config: Make, prepared_folder: Path) -> None:
    plan = json.loads((prepared_folder / "plan.json").read_text(encoding="utf-8"))
    plan["plan"]["patients"]["P0"] = "P1"
    (prepared_folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match="changed after the preparation"):
        train(config())


def test_every_step_starts_from_its_own_random_state() -> None:
    module = TrainingModule(task=torch.nn.Identity(), optimiser=OptimiserConfig(), steps=1, seed=3)  # type: ignore[arg-type]
    module.on_train_batch_start(None, 0)
    first = torch.rand(3)
    torch.rand(100)
    module.on_train_batch_start(None, 0)
    assert torch.equal(first, torch.rand(3))
    other = TrainingModule(task=torch.nn.Identity(), optimiser=OptimiserConfig(), steps=1, seed=4)  # type: ignore[arg-type]
    other.on_train_batch_start(None, 0)
    assert not torch.equal(first, torch.rand(3))


def test_training_needs_no_image_libraries(config: Make, tmp_path: Path) -> None:
    """From prepared cases, where there is neither SimpleITK nor MONAI (None in sys.modules hides a package)."""
    # Lightning itself imports scipy, matplotlib and pandas where they are installed: those cannot be hidden.
    hidden = ("SimpleITK", "monai", "nibabel")
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules.update(dict.fromkeys({hidden}))")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(asdict(config(max_steps=2))))
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "TeachFormerCore", "train", "--config", str(file)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{repository}"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "per_case.csv").exists()


def test_deep_supervision_heads_are_trained_but_not_shipped(config: Make, tmp_path: Path) -> None:
    from TeachFormerCore.inference.model_folder import load_network, read_card
    from TeachFormerCore.training.export import export_run

    arguments = {"filters": 2, "transformer_depth": 4, "deep_supervision": True}
    folder = train(config(max_steps=2, network_arguments=arguments))
    assert not any(name.startswith("auxiliary") for name in load_file(folder / "weights.safetensors"))
    exported = export_run(folder, output=tmp_path / "model")
    card = read_card(exported)
    assert card["network"]["arguments"] == arguments | {"deep_supervision": False}
    load_network(exported, card)


def test_the_exported_card_tells_the_runs_figures(config: Make, tmp_path: Path) -> None:
    from TeachFormerCore.inference.model_folder import model_folders, read_card
    from TeachFormerCore.training.export import bootstrap_interval, export_run

    folder = train(config(max_steps=2))
    exported = export_run(folder)  # into the user's models folder
    assert exported in model_folders()
    card = read_card(exported)
    values = [float(row["dice"]) for row in rows(folder / "per_case.csv")]
    assert card["accuracy"]["dice"] == pytest.approx(sum(values) / 2, abs=1e-4)
    assert card["accuracy"]["dice_interval_95"] == pytest.approx([min(values), max(values)], abs=1e-4)
    assert card["training"]["validation_patients"] == ["P6", "P7"]
    assert card["field_of_view_mm"] == [160, 160, 160]  # 128 mm and a quarter
    assert bootstrap_interval([0.5]) is None
    with pytest.raises(InputError, match="no finished run"):
        export_run(tmp_path / "nothing")
    (folder / "weights.safetensors").write_bytes(b"changed")
    with pytest.raises(InputError, match="not the file the run's manifest"):
        export_run(folder)


def test_the_papers_protocol_trains_on_every_training_patient_and_its_card_says_who_chose(config: Make) -> None:
    """Regression: 15 % of the patients did nothing, and the val cases, on which the epoch was chosen, were 'never'."""
    from TeachFormerCore.evaluation.seen import was_seen
    from TeachFormerCore.inference.model_folder import read_card
    from TeachFormerCore.training.export import export_run

    for patience, chosen in ((None, False), (5, True)):
        folder = train(config(run=f"paper_{patience}", protocol="paper", patience=patience))
        card = read_card(export_run(folder))
        assert card["training"]["training_patients"] == [f"P{n}" for n in range(6)]
        assert card["training"]["tuning_patients"] == []
        assert ("on which its best epoch was chosen" in card["accuracy"]["on"]) == chosen
        assert ("never trained or tuned on" in card["accuracy"]["on"]) != chosen
        assert was_seen("P6", card["training"]["dataset"], card["training"]) == chosen


def test_two_labels_of_a_case_are_one_case_of_the_card(config: Make) -> None:
    from TeachFormerCore.inference.model_folder import read_card
    from TeachFormerCore.training.export import export_run

    folder = train(config(max_steps=2))
    table = "case,label,dice,loss\nP6,a,0.5,1\nP6,b,0.9,1\nP7,a,,1\nP7,b,0.8,1\n"
    (folder / "per_case.csv").write_text(table, encoding="utf-8")
    accuracy = read_card(export_run(folder))["accuracy"]
    assert (accuracy["cases"], accuracy["dice"]) == (2, pytest.approx(0.75))
    assert accuracy["dice_interval_95"] == pytest.approx([0.7, 0.8])


def test_a_bare_replace_keeps_the_checks(config: Make) -> None:
    with pytest.raises(InputError):
        replace(config(), batch_size=0)
