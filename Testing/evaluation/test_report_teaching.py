"""What the report tells of teachers that were weighed, and of channels that are missing."""

from types import SimpleNamespace

import pytest

from TeachFormerCore.evaluation.report.missing_channels import missing_channels
from TeachFormerCore.evaluation.report.weighed_teachers import weighed_teachers


def arm(*manifests: dict) -> SimpleNamespace:
    runs = [SimpleNamespace(manifest=manifest, fold=fold, seed=0) for fold, manifest in enumerate(manifests)]
    return SimpleNamespace(title="student", runs=tuple(runs))


def test_weighed_teachers_have_a_row_each() -> None:
    tune = {"dice": 0.75, "ece": 0.031, "ece_calibrated": 0.012}
    record = {"run": "cv/unetr_fold0_seed0", "weight": 0.4, "temperature": 1.5, "tune": tune}
    table = weighed_teachers([arm({"teachers": [record]}, {"teachers": [{"run": "other", "weight": 1.0}]})])
    assert table is not None
    assert table.cells() == [["student", "0", "0", "unetr_fold0_seed0", "0.750", "0.400", "1.500", "0.0310", "0.0120"]]


def test_missing_channels_lose_what_the_full_set_has_more() -> None:
    first = {"subsets": {"CT": 0.5, "PET": 0.6, "CT+PET": 0.8}}
    second = {"subsets": {"CT": 0.3, "PET": 0.6, "CT+PET": 0.6}}
    table = missing_channels([arm(first, second), arm({"subsets": {}})])
    assert table is not None
    assert [(row["channels"], row["dice"], row["lost"]) for row in table.rows] == [
        ("CT", pytest.approx(0.4), pytest.approx(0.3)),
        ("PET", pytest.approx(0.6), pytest.approx(0.1)),
        ("CT+PET", pytest.approx(0.7), 0),
    ]


def test_a_subset_of_which_no_case_says_anything_is_told_as_nothing() -> None:
    table = missing_channels([arm({"subsets": {"CT": 0.5, "CT+PET": None}}, {"subsets": {"CT": 0.3, "CT+PET": None}})])
    assert table is not None
    assert [(row["channels"], row["dice"], row["lost"]) for row in table.rows] == [
        ("CT", pytest.approx(0.4), None),
        ("CT+PET", None, None),
    ]
    assert "left out; a false alarm in an empty case counts 0" in " ".join(table.notes)


def test_without_either_there_is_no_table() -> None:
    plain = arm({"teachers": [], "subsets": {}})
    assert missing_channels([plain]) is None
    assert weighed_teachers([plain]) is None
