"""``teachformer report`` of runs that are damaged, or no runs: named, left out or refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from studies import PATIENTS, rows_of, write_prepared

from TeachFormerCore.commands import main


@pytest.mark.parametrize("damage", ["missing", "truncated", "swapped", "other size"])
def test_a_damaged_run_is_named_and_left_out(own, tmp_path, capsys, damage):
    folder = own / "student_fold0_seed0" / "predictions"
    file = folder / "P1.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "swapped":
        shutil.copy(own / "unetr_fold0_seed0" / "predictions" / "P1.safetensors", file)
    else:
        save_file({"label": np.zeros((3, 3, 3), np.uint8), "foreground": np.zeros((1, 3, 3, 3), np.uint8)}, file)
    runs = [str(own / f"{name}_fold0_seed0") for name in ("student", "h_denseformer")]
    assert main(["report", *runs, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "student, fold 0, seed 0" in error
    assert "P1" in error
    assert "student" not in rows_of(tmp_path / "out", "table1_size_and_accuracy")
    assert "student" in (tmp_path / "out" / "tables" / "unfinished.csv").read_text(encoding="utf-8")


WITHOUT = object()


@pytest.mark.parametrize(
    ("keys", "value", "named"),
    [
        ((), {}, "config is missing"),
        ((), [], "all of it"),
        (("network", "name"), "no_such", "There is no network 'no_such'"),
        (("network", "arguments"), {"no_such": 1}, "does not take these arguments"),
        (("config", "image_size"), "large", "config.image_size"),
        (("config", "image_size"), [0, 0, 0], "cannot be built"),
        (("config", "distillation"), WITHOUT, "config.distillation"),
        (("config", "fold"), [0], "config.fold"),
        (("config", "spacing"), [3.0, 3.0], "config.spacing"),
        (("seconds_per_step",), "x", "seconds_per_step"),
        (("seconds_per_step",), float("nan"), "NaN is no number"),
        (("kept_out",), 5, "kept_out"),
        (("versions",), 5, "versions"),
        (("subsets",), {"CT": "x"}, "subsets.CT"),
        (("teachers", 0, "tune"), 5, "teachers[0].tune"),
        (("patients",), None, "patients"),
    ],
)
def test_a_damaged_manifest_is_named_and_its_run_left_out(own, tmp_path, capsys, keys, value, named):
    file = own / "student_from_h_denseformer_fold0_seed0" / "manifest.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is WITHOUT:
        del inner[keys[-1]]
    elif keys:
        inner[keys[-1]] = value
    file.write_text(json.dumps(content if keys else value), encoding="utf-8")
    runs = [str(own / f"{name}_fold0_seed0") for name in ("student", "h_denseformer", "student_from_h_denseformer")]
    assert main(["report", *runs, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert f"not in the report: student_from_h_denseformer, fold 0, seed 0: {file}" in error
    assert named in error
    assert "student from h denseformer" not in rows_of(tmp_path / "out", "table1_size_and_accuracy")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "has no row of P0, GTV"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"case,label,dice,loss\nP0,GTV,much,0\n", "cannot be read"),
        (b"case,label,dice,loss\nP0,GTV,nan,0\n", "has no row of P1, GTV"),
        (b"a,b\n1,2\n", "cannot be read"),
    ],
)
def test_a_damaged_table_of_cases_is_named_and_its_run_left_out(own, tmp_path, capsys, content, named):
    (own / "student_fold0_seed0" / "per_case.csv").write_bytes(content)
    runs = [str(own / f"{name}_fold0_seed0") for name in ("student", "h_denseformer")]
    assert main(["report", *runs, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "not in the report: student, fold 0, seed 0" in error
    assert f"per_case.csv {named}" in error


def test_what_cannot_be_reported_is_refused(own, tmp_path, capsys):
    def refused(*runs: Path, **changes: object) -> str:
        assert main(["report", *map(str, runs), "--output", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "neither a run nor a cross-validation" in refused(tmp_path)
    assert "no finished run" in refused(own / "unet_fold1_seed0")
    assert "there twice" in refused(own, own / "student_fold0_seed0")
    manifest = own / "student_fold0_seed0" / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    for change, sentence in (
        ({"patients": content["patients"] | {"validation": ["P5"]}}, "keep different patients out"),
        ({"data": content["data"] | {"preparation": "0"}}, "different data"),
    ):
        manifest.write_text(json.dumps(content | change), encoding="utf-8")
        assert sentence in refused(own)
    manifest.write_text("{", encoding="utf-8")
    assert "no run that can be used" in refused(manifest.parent)


def test_other_data_is_refused(study_folder, tmp_path, capsys):
    other = write_prepared(tmp_path / "other", PATIENTS[:5])
    assert main(["report", str(study_folder), "--output", str(tmp_path / "out"), "--data", str(other)]) == 2
    assert "other data" in capsys.readouterr().err
    assert main(["report", str(study_folder), "--output", str(tmp_path / "out"), "--data", "nowhere"]) == 2
    assert "--data" in capsys.readouterr().err


def test_nothing_is_written_into_a_run(study_folder, capsys):
    run = study_folder / "student_fold0_seed0"
    assert main(["report", str(run), "--output", str(run)]) == 2
    assert "never written into" in capsys.readouterr().err
