"""The whole of the science in miniature: cross-validation of known answer, then the report that must tell it."""

import csv
import json
from pathlib import Path

import pytest

from TeachFormerCore.commands import main


def test_distillation_helps_where_teachers_know_more(miniature: Path) -> None:
    """2 teachers, 2 arms, 2 folds: what the students' labels cannot tell them, their teachers do."""

    def dice(arm: str, fold: int) -> float:
        manifest = json.loads((miniature / f"{arm}_fold{fold}_seed0" / "manifest.json").read_text(encoding="utf-8"))
        return float(manifest["val_dice"])

    gains = [dice("student_from_all", fold) - dice("student", fold) for fold in (0, 1)]
    assert sum(gains) / 2 > 0.1, gains
    assert len(json.loads((miniature / "crossval.json").read_text(encoding="utf-8"))["jobs"]) == 8


def test_the_report_tells_it(miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(miniature), "--output", str(tmp_path / "report")]) == 0
    said = capsys.readouterr().out
    verdict = next(line for line in said.splitlines() if "student from all against student" in line)
    assert verdict.endswith(": better.")
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    with (tmp_path / "report" / "tables" / "kept_out_cases.csv").open(newline="", encoding="utf-8") as stream:
        tested = {row["arm"]: row for row in csv.DictReader(stream)}
    assert float(tested["student from all"]["gain"]) > 0.05
    assert {row["patients"] for row in tested.values()} == {"3"}
