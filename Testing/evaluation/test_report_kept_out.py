"""Cases that a whole cross-validation keeps out: the best-val fold, and the mean over the folds, from stored masks."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from studies import ARMS, write_prepared, write_study

from TeachFormerCore.commands import main
from TeachFormerCore.data.prepared import open_prepared
from TeachFormerCore.evaluation.overlap import dice
from TeachFormerCore.evaluation.report.context import FALSE_ALARMS_NOTE

PATIENTS = [f"P{number}" for number in range(8)]
TESTED = [f"T{number}" for number in range(5)]
FOLDS = [PATIENTS[:4], PATIENTS[4:]]
STUDENTS = {name: ARMS[name] for name in ("h_denseformer", "student", "student_from_h_denseformer")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The cross-validation, and the prepared cases kept out of it."""
    folder = tmp_path_factory.mktemp("kept_out")
    prepared = write_prepared(folder / "prepared", PATIENTS)
    tested = write_prepared(folder / "tested", TESTED)
    study = write_study(folder / "cv", prepared, FOLDS, arms=STUDENTS, ensemble=False, tested=tested)
    return study, tested


@pytest.fixture(scope="module")
def rows(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    output = tmp_path_factory.mktemp("report") / "out"
    assert main(["report", str(folders[0]), "--output", str(output)]) == 0
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "Cases kept out of the cross-validation" in text
    assert FALSE_ALARMS_NOTE not in text  # no case is empty
    assert "At 5 %, a difference cannot be shown with 5 patients and 1 test." in text
    with (output / "tables" / "kept_out_cases.csv").open(newline="", encoding="utf-8") as stream:
        return {row["arm"]: row for row in csv.DictReader(stream)}


def mean_dice(run: Path, stored: str, labels: dict[str, np.ndarray]) -> float:
    """Counted here, from the stored masks."""
    values: list[Any] = [
        dice(load_file(run / stored / f"{case}.safetensors")["label"] == 1, label == 1)
        for case, label in labels.items()
    ]
    return float(np.mean(values))


@pytest.mark.parametrize("arm", STUDENTS)
def test_the_fold_is_the_best_on_val_and_the_figure_is_of_the_cases_kept_out(
    folders: tuple[Path, Path], rows: dict[str, dict[str, str]], arm: str
) -> None:
    study, tested = folders
    data, kept_out = open_prepared(study.parent / "prepared"), open_prepared(tested)
    val, test = [], []
    for fold, patients in enumerate(FOLDS):
        run = study / f"{arm}_fold{fold}_seed0"
        val.append(mean_dice(run, "predictions", {case: data.load(case)[1] for case in patients}))
        test.append(mean_dice(run, "predictions_kept_out", {case: kept_out.load(case)[1] for case in TESTED}))
    best = int(np.argmax(val))
    row = rows[arm.replace("_", " ")]
    assert int(row["best_fold"]) == best
    assert float(row["val_dice"]) == pytest.approx(val[best])
    assert float(row["dice"]) == pytest.approx(test[best])
    assert int(row["patients"]) == len(TESTED)
    assert float(row["models_mean"]) == pytest.approx(np.mean(test))
    assert float(row["models_sd"]) == pytest.approx(np.std(test, ddof=1))


def test_gains_priors_and_the_papers_figures_are_beside_it(rows: dict[str, dict[str, str]]) -> None:
    distilled, alone = rows["student from h denseformer"], rows["student"]
    assert float(distilled["gain"]) == pytest.approx(float(distilled["dice"]) - float(alone["dice"]))
    assert float(distilled["p_holm"]) == float(distilled["p_permutation"]) >= 2 / 2 ** len(TESTED)
    assert alone["gain"] == ""
    assert rows["predict nothing"]["dice"] == "0.0"
    assert rows["predict nothing"]["best_fold"] == ""
    assert "HECKTOR21" in alone["paper"]


def test_the_cases_can_lie_elsewhere_but_not_be_others(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, tested = folders
    moved = Path(shutil.copytree(tested, tmp_path / "moved"))
    output = ["--output", str(tmp_path / "out")]
    assert main(["report", str(study), *output, "--kept-out", str(moved)]) == 0
    assert main(["report", str(study), *output, "--kept-out", str(study.parent / "prepared")]) == 2
    told = capsys.readouterr().err
    assert "--kept-out" in told
    assert "tested on" in told


def test_runs_tested_on_different_cases_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Path(shutil.copytree(folders[0], tmp_path / "cv"))
    file = study / "student_fold1_seed0" / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["kept_out"]["preparation"] = "another"
    file.write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["report", str(study), "--output", str(tmp_path / "out")]) == 2
    assert "tested on different cases kept out" in capsys.readouterr().err


def test_a_changed_prediction_is_found(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Path(shutil.copytree(folders[0], tmp_path / "cv"))
    stored = study / "student_fold1_seed0" / "predictions_kept_out"
    (stored / "T0.safetensors").write_bytes((stored / "T1.safetensors").read_bytes())
    assert main(["report", str(study), "--output", str(tmp_path / "out")]) == 1
    assert "kept_out.csv says Dice" in capsys.readouterr().err


def test_a_later_report_needs_no_predictions_of_runs_that_are_gone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Fold 0's runs are kept without their predictions, fold 1's are whole: every table is as before, to the digit."""
    study = Path(shutil.copytree(folders[0], tmp_path / "cv"))
    content = json.loads((study / "crossval.json").read_text(encoding="utf-8"))
    content["arms"]["both"] = {"ensemble_of": ["h_denseformer", "student"]}
    (study / "crossval.json").write_text(json.dumps(content), encoding="utf-8")
    before, after = tmp_path / "before", tmp_path / "after"
    assert main(["report", str(study), "--output", str(before)]) == 0
    kept = []
    for run in sorted(study.glob("*_fold0_seed0")):
        kept.append(Path(shutil.move(run, tmp_path / run.name)))
        for folder in ("predictions", "predictions_kept_out"):
            shutil.rmtree(kept[-1] / folder)
    later = ["report", str(study), *map(str, kept), "--output", str(after), "--title", "TeachFormer: cv"]
    assert main([*later, "--scores", str(before / "scores.json")]) == 0
    tables = sorted(file.name for file in (before / "tables").iterdir())
    assert tables == sorted(file.name for file in (after / "tables").iterdir())
    for name in (*(f"tables/{table}" for table in tables), "per_case.csv"):
        assert (before / name).read_text(encoding="utf-8") == (after / name).read_text(encoding="utf-8"), name
    assert entries(before) == entries(after)
    # What is in no later report any more is not kept for ever.
    fewer = [str(run) for run in sorted(study.glob("*_fold1_seed0"))]
    assert main(["report", *fewer, "--output", str(tmp_path / "fewer"), "--scores", str(before / "scores.json")]) == 0
    assert 0 < len(entries(tmp_path / "fewer")) < len(entries(before))


def entries(report: Path) -> list[Any]:
    """Its scores, in an order of their own."""
    content = json.loads((report / "scores.json").read_text(encoding="utf-8"))
    return sorted(content["entries"], key=lambda one: (one["kept_out"], one["weights"]))


def test_scores_of_other_weights_are_not_taken(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Path(shutil.copytree(folders[0], tmp_path / "cv"))
    assert main(["report", str(study), "--output", str(tmp_path / "before")]) == 0
    run = study / "student_fold0_seed0"
    shutil.rmtree(run / "predictions")
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    (run / "manifest.json").write_text(json.dumps(manifest | {"weights_sha256": "other"}), encoding="utf-8")
    scores = ["--scores", str(tmp_path / "before" / "scores.json")]
    assert main(["report", str(study), "--output", str(tmp_path / "after"), *scores]) == 1
    assert "student, fold 0, seed 0" in capsys.readouterr().err
    (tmp_path / "none.json").write_text('{"entries": [{"weights": []}]}', encoding="utf-8")
    assert main(["report", str(study), "--output", str(tmp_path / "x"), "--scores", str(tmp_path / "none.json")]) == 2
    assert "is not the scores.json of a report" in capsys.readouterr().err
