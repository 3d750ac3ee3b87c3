"""A run whose files are damaged is named by every command that reads it; nothing is taken for finished, or lost."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from untrained import untrained_run

from TeachFormerCore.commands import main
from TeachFormerCore.run_files import misfit
from TeachFormerCore.training.config import TeacherConfig, TrainConfig
from TeachFormerCore.training.run_folder import config_text, run_path

Make = Callable[..., TrainConfig]


def write(file: Path, config: TrainConfig, **more: Any) -> str:
    file.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config))) | more), encoding="utf-8")
    return str(file)


def without(manifest: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name != key}


DAMAGES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "broken": lambda _: b"{",
    "list": lambda _: b"[]",
    "object": lambda _: b"{}",
    "null": lambda _: b"null",
    "bytes": lambda _: b"\xff\xfe",
    "no network": lambda manifest: json.dumps(without(manifest, "network")).encode(),
    "no patients": lambda manifest: json.dumps(manifest | {"patients": None}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_named(
    config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    teacher = config(run=str(tmp_path / "teacher"))
    file = untrained_run(teacher) / "manifest.json"
    student = replace(teacher, run=str(tmp_path / "student"), teachers=[TeacherConfig(run=teacher.run)])
    arms = write(tmp_path / "cv.yaml", config(run=str(tmp_path / "cv")), folds=[0], seeds=[0], arms={"a": {}})
    in_crossval = untrained_run(config(run=str(tmp_path / "cv" / "a_fold0_seed0"))) / "manifest.json"
    for each in (file, in_crossval):
        each.write_bytes(DAMAGES[damage](json.loads(each.read_text(encoding="utf-8"))))
    for command, named in (
        (["train", "--config", write(tmp_path / "teacher.yaml", teacher)], file),
        (["distill", "--config", write(tmp_path / "student.yaml", student)], file),
        (["reproduce", teacher.run], file),
        (["export", "--run", teacher.run], file),
        (["crossval", "--config", arms, "--plan"], in_crossval),
        (["crossval", "--config", arms], in_crossval),
    ):
        assert main(command) == 2, command
        told = capsys.readouterr()
        assert str(named) in told.err
        assert told.err.count("\n") == 1
        assert "finished" not in told.out


@pytest.mark.parametrize("text", [b"", b"- 1\n", b"a: [", b"\xff\xfe\x00", b"seed: much\n", b"teachers: 5\n"])
def test_a_damaged_configuration_is_named(
    config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    wanted = config(run=str(tmp_path / "cv" / "a_fold0_seed0"))
    arms = write(tmp_path / "cv.yaml", config(run=str(tmp_path / "cv")), folds=[0], seeds=[0], arms={"a": {}})
    file = run_path(wanted.run) / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(text)
    for command in (
        ["train", "--config", write(tmp_path / "wanted.yaml", wanted)],
        ["crossval", "--config", arms],
        ["crossval", "--config", arms, "--plan"],
    ):
        assert main(command) == 2, command
        told = capsys.readouterr().err
        assert str(file) in told
        assert told.count("\n") == 1


def test_keys_that_an_earlier_version_did_not_write_have_their_defaults(config: Make, tmp_path: Path) -> None:
    folder = untrained_run(config(run=str(tmp_path / "run")))
    values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    del values["tensorboard"], values["distillation"]["calibrate"]
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert main(["train", "--config", write(tmp_path / "run.yaml", config(run=str(folder)))]) == 0


def test_a_dice_of_0_is_a_score(config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = config(run=str(tmp_path / "run"))
    file = tmp_path / "config.yaml"
    file.write_text(config_text(made), encoding="utf-8")
    untrained_run(made, val_dice=0.0)
    assert main(["train", "--config", str(file)]) == 0
    assert "Dice 0.0000 on 2 val patients" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "shape", "wrong"),
    [
        ({"a": 1}, {"a": int}, None),
        ({"a": 1}, {"a": str}, "a"),
        ({}, {"a": (int, type(None))}, "a"),
        ({}, {"a?": int}, None),
        ({"a": None}, {"a?": int}, "a"),
        ({"a": [1, 2]}, {"a": [int]}, None),
        ({"a": [1, "x"]}, {"a": [int]}, "a[1]"),
        ({"a": [1, 2]}, {"a": [int, int, int]}, "a"),
        ({"a": {"x": 1, "y?": "z"}}, {"a": {str: int}}, "a.y?"),
        ([], {"a": int}, "all of it"),
    ],
)
def test_the_first_place_that_does_not_fit_is_named(value: Any, shape: Any, wrong: str | None) -> None:
    assert misfit(value, shape) == (f"{wrong} is missing or wrong" if wrong else None)
