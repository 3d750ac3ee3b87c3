"""A finished run again: the same bits, or the reason why not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from TeachFormerCore.commands import main
from TeachFormerCore.training.config import TeacherConfig, TrainConfig
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]


@pytest.fixture
def student(config: Make, tmp_path: Path) -> Path:
    """A finished distillation, in fp32."""
    teacher = train(config(run=str(tmp_path / "teacher"), max_steps=1, precision="fp32"))
    taught = config(run=str(tmp_path / "student"), teachers=[TeacherConfig(run=str(teacher))], max_steps=2)
    return train(replace(taught, precision="fp32", check_every=9))


def test_the_same_bits_then_a_changed_one(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", str(student)]) == 0
    assert "bit for bit" in capsys.readouterr().out
    repeated = student.with_name("student_reproduced")
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (student, repeated))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())

    ours["head.weight"][0] += 0.25  # the original is not what training gives
    save_file(ours, student / "weights.safetensors")
    assert main(["reproduce", str(student)]) == 1
    assert "1 tensors differ, by 0.25 at most\n" in capsys.readouterr().out
    file = student / "manifest.json"
    shared = json.loads(file.read_text(encoding="utf-8")) | {"processes": 2}
    file.write_text(json.dumps(shared), encoding="utf-8")
    assert main(["reproduce", str(student)]) == 1
    assert "by 0.25 at most (one process computes here, 2 shared each batch then" in capsys.readouterr().out


def test_other_data_splits_or_teachers_are_refused_and_versions_noticed(
    student: Path, tmp_path: Path, prepared_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = student / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))

    def refused(changes: dict[str, object]) -> str:
        file.write_text(json.dumps(manifest | changes), encoding="utf-8")
        assert main(["reproduce", str(student)]) == 2
        assert not student.with_name("student_reproduced").exists()
        return capsys.readouterr().err

    assert "is not the data" in refused({"data": manifest["data"] | {"preparation": "other"}})
    assert "does not give the cases of fold 0" in refused({"data": manifest["data"] | {"split": "other"}})
    record = manifest["teachers"][0]
    assert "is not the teacher" in refused({"teachers": [record | {"weights_sha256": "other"}]})

    file.write_text(json.dumps(manifest | {"versions": manifest["versions"] | {"torch": "0.1"}}), encoding="utf-8")
    moved = prepared_folder.rename(tmp_path / "moved")
    assert main(["reproduce", str(student), "--data", str(moved), "--into", str(tmp_path / "again")]) == 0
    said = capsys.readouterr()
    assert "notice: torch" in said.err
    assert "0.1 then" in said.err
    assert (tmp_path / "again" / "manifest.json").is_file()
    assert main(["reproduce", str(student), "--into", str(student), "--data", str(moved)]) == 2
    assert main(["reproduce", str(tmp_path / "absent")]) == 2
