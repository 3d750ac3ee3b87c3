"""Teachers from their runs: taps that choose maps, and nobody's knowledge of whom the fold keeps out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from untrained import TEACHER, untrained_run

from TeachFormerCore.data.prepared import open_prepared
from TeachFormerCore.data.splits import read_splits
from TeachFormerCore.distillation.teacher import Teacher
from TeachFormerCore.errors import InputError
from TeachFormerCore.run_files import read_manifest
from TeachFormerCore.training.config import TeacherConfig, TrainConfig
from TeachFormerCore.training.teachers import load_teachers

Make = Callable[..., TrainConfig]


def load(config: TrainConfig, *teachers: TeacherConfig) -> tuple[list[Teacher], list[dict[str, Any]]]:
    config = replace(config, teachers=list(teachers))
    prepared = open_prepared(Path(config.data))
    split = read_splits(config.splits, config.fold, prepared.plan.patients, seed=config.seed)
    return load_teachers(config, prepared=prepared, split=split, classes=2, device=torch.device("cpu"))


def test_any_number_and_mix_of_networks_frozen(config: Make, tmp_path: Path) -> None:
    other = {"network": "unet", "network_arguments": {"widths": [2, 2, 2, 2, 2]}}
    runs = [untrained_run(config(run=str(tmp_path / name), **changes)) for name, changes in (("h", {}), ("u", other))]
    names = [str(run) for run in runs]
    teachers, records = load(
        config(), TeacherConfig(run=names[0], weight=0.3), TeacherConfig(run=names[1]), TeacherConfig(run=names[0])
    )
    assert [teacher.name for teacher in teachers] == [names[0], names[1], names[0]]
    assert [teacher.weight for teacher in teachers] == [0.3, 1.0, 1.0]
    assert [record["network"]["name"] for record in records] == ["h_denseformer_light", "unet", "h_denseformer_light"]
    for teacher in teachers:
        assert not teacher.network.training
        assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
        assert teacher.maps(torch.zeros(1, 2, 32, 32, 32)).logits.shape == (1, 2, 32, 32, 32)


def test_taps_choose_maps_and_leave_the_answer_alone(config: Make, tmp_path: Path) -> None:
    run = str(untrained_run(config(run=str(tmp_path / "teacher"))))
    tap = {"coarse_tap": "mpe"}
    (plain, tapped), records = load(config(), TeacherConfig(run=run), TeacherConfig(run=run, taps=tap))
    image = torch.randn(1, 2, 32, 32, 32)
    usual, chosen = plain.maps(image), tapped.maps(image)
    assert torch.equal(usual.logits, chosen.logits)
    assert torch.equal(usual.fine, chosen.fine)
    assert chosen.coarse.shape == usual.coarse.shape == (1, 16, 2, 2, 2)
    assert not torch.allclose(usual.coarse, chosen.coarse)
    assert [record["taps"] for record in records] == [{}, tap]
    assert records[1]["network"]["arguments"] == records[0]["network"]["arguments"] | tap


@pytest.mark.parametrize("taps", [{"coarse_tap": "other"}, {"no_such": 1}, {"filters": 3}])
def test_taps_that_are_none_are_refused(config: Make, tmp_path: Path, taps: dict[str, Any]) -> None:
    run = str(untrained_run(config(run=str(tmp_path / "teacher"))))
    with pytest.raises(InputError, match="cannot be built with the taps .* do not change the weights"):
        load(config(), TeacherConfig(run=run, taps=taps))


def test_a_teachers_teacher_leaks_too(config: Make, tmp_path: Path) -> None:
    """P6 is kept out; the teacher did not see it, but the one it learned from did."""
    first = TEACHER | {"run": "first", "training_patients": ["P1"], "tuning_patients": ["P6"]}
    second = TEACHER | {"run": "second", "training_patients": ["P1"], "tuning_patients": ["P2"], "teachers": [first]}
    run = untrained_run(config(run=str(tmp_path / "teacher")), teachers=[second])
    with pytest.raises(InputError, match="teacher first saw the patient P6 in tuning"):
        load(config(), TeacherConfig(run=str(run)))


def test_a_teacher_chosen_on_val_cases_saw_them(config: Make, tmp_path: Path) -> None:
    """Early stopping on val is the paper's protocol, and knowledge of these cases in any other."""
    paper = {"protocol": "paper", "patience": 2}
    runs = {
        name: str(untrained_run(config(run=str(tmp_path / name), **changes)))
        for name, changes in (("chosen", paper), ("final", paper | {"patience": None}))
    }
    with pytest.raises(InputError, match="saw the patient P6, P7 in validation"):
        load(config(), TeacherConfig(run=runs["chosen"]))
    assert load(config(), TeacherConfig(run=runs["final"]))[1][0]["chosen_on_validation"] is False
    teachers, records = load(config(**paper), TeacherConfig(run=runs["chosen"]))
    assert records[0]["chosen_on_validation"] is True
    assert len(teachers) == 1


def test_a_record_says_who_was_seen(config: Make, tmp_path: Path) -> None:
    run = untrained_run(config(run=str(tmp_path / "teacher"), seed=3))
    (record,) = load(config(), TeacherConfig(run=str(run)))[1]
    patients = read_manifest(run)["patients"]
    assert {role: record[f"{role}_patients"] for role in patients} == patients
    assert (record["fold"], record["seed"]) == (0, 3)
