"""From configurations to losses: every key arrives, what cannot be is refused, and what learns stays in its place."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from TeachFormerCore.distillation import balancing
from TeachFormerCore.distillation.distillation_task import DistillationTask
from TeachFormerCore.distillation.teacher import Teacher
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.model_folder import load_network, read_card
from TeachFormerCore.networks import build_network
from TeachFormerCore.training import checkpoint
from TeachFormerCore.training.config import DistillationConfig, LossConfig, TeacherConfig, TrainConfig
from TeachFormerCore.training.export import export_run
from TeachFormerCore.training.tasks import new_task
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]


@pytest.fixture
def teachers(config: Make, tmp_path: Path) -> list[TeacherConfig]:
    """Two finished runs of fold 0, of other widths than the student."""
    runs = []
    for filters in (3, 4):
        arguments = {"filters": filters, "transformer_depth": 4}
        runs.append(train(config(run=str(tmp_path / f"teacher{filters}"), network_arguments=arguments, max_steps=2)))
    return [TeacherConfig(run=str(run)) for run in runs]


def test_every_key_of_the_losses_arrives(config: Make) -> None:
    network = build_network("h_denseformer_light", in_channels=2, out_channels=2, image_size=(32,) * 3, filters=2)
    made = new_task(
        config(
            loss=LossConfig(
                dice=0.5, focal_gamma=1.0, whole_batch_dice=True, label_smoothing=0.1, self_distillation_detach="skips"
            )
        ),
        network=network,
        teachers=[],
    )
    assert (made.loss.focal_gamma, made.loss.whole_batch_dice, made.loss.label_smoothing) == (1.0, True, 0.1)
    assert made.self_distillation.detach == "skips"
    assert made.weights == {"dice": 0.5, "focal": 1.0, "self_distillation": 0.3}
    with pytest.raises(InputError, match="configuration cannot be used: label_smoothing must be"):
        new_task(config(loss=LossConfig(label_smoothing=2.0)), network=network, teachers=[])
    with pytest.raises(InputError, match="weights in loss must not be negative"):
        new_task(config(loss=LossConfig(focal=-1.0)), network=network, teachers=[])


def test_every_key_of_a_distillation_arrives(config: Make) -> None:
    sizes = {"in_channels": 2, "out_channels": 2, "image_size": (32,) * 3, "filters": 2}
    networks = [build_network("h_denseformer_light", **sizes) for _ in range(3)]
    teachers = [Teacher(name=name, network=network) for name, network in zip("ab", networks[1:], strict=True)]
    keys = {
        "mode": "projected",
        "similarity_coarse": 2.0,
        "similarity_fine": 0.0,
        "divergence": 3.0,
        "divergence_form": "js",
        "direction": "teacher_student",
        "temperature": 4.0,
        "foreground_balanced": True,
        "balancing": "gradient",
        "drop_teacher": 0.25,
        "shuffle_teachers": True,
    }
    made = new_task(config(distillation=DistillationConfig(**keys)), network=networks[0], teachers=teachers)
    assert isinstance(made, DistillationTask)
    assert made.similarity.form == "projected"
    assert made.term_names == ("dice", "focal", "similarity_coarse", "divergence")
    assert (made.weights["similarity_coarse"], made.weights["divergence"]) == (2.0, 3.0)
    divergence = made.divergence
    assert (divergence.form, divergence.direction, divergence.temperature) == ("js", "teacher_student", 4.0)
    assert divergence.foreground_balanced
    assert made.balancing is not None
    assert (made.drop_teacher, made.shuffle_teachers) == (0.25, True)
    with pytest.raises(InputError, match="needs two teachers or more"):
        new_task(config(distillation=DistillationConfig(**keys)), network=networks[0], teachers=teachers[:1])


@pytest.mark.parametrize(
    ("changes", "keys", "reason"),
    [
        ({"batch_size": 1}, {"shuffle_teachers": True}, "batch_size of 2 or more"),
        ({"compile": True}, {"balancing": "gradient"}, "'compile' forbids"),
        ({}, {"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_configurations_that_cannot_be_right(config: Make, changes: dict, keys: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        config(**changes, distillation=DistillationConfig(**keys))


def test_a_projection_is_dropped_afterwards(config: Make, teachers: list[TeacherConfig], tmp_path: Path) -> None:
    """It learns with the student and is in the checkpoint; neither weights nor model folder know of it."""
    folder = train(config(teachers=teachers[:1], distillation=DistillationConfig(mode="projected"), max_steps=2))
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["task"]
    assert {name for name in state if not name.startswith("student.")} == {
        "projections.similarity_coarse_0.matrix.weight",
        "projections.similarity_fine_0.matrix.weight",
    }
    weights = load_file(folder / "weights.safetensors")
    assert {f"student.{name}" for name in weights} == {name for name in state if name.startswith("student.")}
    model = export_run(folder, output=tmp_path / "model")
    assert load_file(model / "weights.safetensors").keys() == weights.keys()
    load_network(model, read_card(model))


class KilledError(Exception):
    pass


def test_all_that_draws_and_learns_resumes_bit_for_bit(
    config: Make, teachers: list[TeacherConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Projections, the balance (which looks at steps 0, 3 and 6) and dropped teachers, stopped after the fourth."""
    monkeypatch.setattr(checkpoint, "SHARE_OF_TIME", 1.0)  # after each epoch
    monkeypatch.setattr(balancing, "EVERY", 3)
    keys = {"mode": "projected", "balancing": "gradient", "drop_teacher": 0.5, "foreground_balanced": True}
    settings = config(teachers=teachers, distillation=DistillationConfig(**keys), max_steps=8, check_every=100)
    straight = train(replace(settings, run=str(tmp_path / "straight")))
    plain = checkpoint.Checkpoint.on_train_epoch_end

    def killing(self: checkpoint.Checkpoint, trainer: object, module: object) -> None:
        plain(self, trainer, module)  # type: ignore[arg-type]
        if module.step == 4:  # type: ignore[attr-defined]
            raise KilledError

    stopped = replace(settings, run=str(tmp_path / "stopped"))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "on_train_epoch_end", killing)
        with pytest.raises(KilledError):
            train(stopped)
    train(stopped)
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (straight, tmp_path / "stopped")
    ]
    ours, theirs = (state["task"] for state in states)
    assert ours["balancing.steps"] == 8
    assert ours["balancing.log_scale"].all()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    tables = [(run / "metrics.csv").read_text(encoding="utf-8") for run in (straight, tmp_path / "stopped")]
    assert tables[0] == tables[1]


def test_missu_distils_itself_and_ships_without_its_fusion(config: Make, tmp_path: Path) -> None:
    folder = train(config(network="missu", network_arguments={"filters": 8, "fusion": "local"}, max_steps=2))
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        first = next(csv.DictReader(stream))
    assert 0 < float(first["train_self_distillation"]) < 0.3 * 3 * 2**0.5
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["network"]["arguments"] == {"filters": 8, "fusion": None}
    assert not any(name.startswith("fusion") for name in load_file(folder / "weights.safetensors"))
    model = export_run(folder, output=tmp_path / "model")
    load_network(model, read_card(model))
