"""summary.json, per_case.csv, the table, and which cases a model has seen."""

import csv
import io
import json

import numpy as np
import pytest

from TeachFormerCore.evaluation.scores import score
from TeachFormerCore.evaluation.seen import was_seen
from TeachFormerCore.evaluation.summary import per_case_csv, summarise
from TeachFormerCore.evaluation.table import render


def scored(case: str, label: str, predicted: int, true: int, seen: bool = False):
    """Bars of ``predicted`` and ``true`` voxels of 1 x 1 x 7 mm that start at the same place."""
    masks = np.zeros((2, 4, 4, 10), bool)
    for mask, length in zip(masks, (predicted, true), strict=True):
        mask[1:3, 1:3, :length] = True
    return score(*masks, spacing=(1, 1, 7), case=case, label=label, seen=seen)


@pytest.fixture
def scores():
    return [
        scored("A", "anterior", 3, 6, seen=True),
        scored("A", "posterior", 0, 5, seen=True),
        scored("B", "anterior", 4, 4),
        scored("B", "posterior", 0, 0),
    ]


@pytest.fixture
def summary(scores):
    return summarise(
        scores,
        model="S1",
        dataset="Bars",
        split="Tr",
        baselines={"predict_nothing": [scored("A", "anterior", 0, 6)], "suv_2_5": None},
        failed=[{"case": "C", "error": "no"}],
        notices=["suv_2_5 is left out"],
    )


def test_summary(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["model"], summary["dataset"], summary["split"]) == ("S1", "Bars", "Tr")
    assert [(row["case"], row["label"], row["missed"], row["seen"]) for row in summary["cases"]] == [
        ("A", "anterior", False, True),
        ("A", "posterior", True, True),
        ("B", "anterior", False, False),
        ("B", "posterior", False, False),
    ]
    assert set(summary["cases"][0]) == {
        *("case", "label", "dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml", "missed", "seen")
    }
    assert (summary["empty_cases"], summary["missed_cases"], summary["seen_cases"]) == (1, 1, 1)
    assert summary["mean"]["dice"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert summary["mean_per_label"]["anterior"]["dice"] == pytest.approx((2 / 3 + 1) / 2)
    assert summary["mean_per_label"]["posterior"]["dice"] == 0
    assert summary["baselines"]["predict_nothing"]["dice"] == 0
    assert summary["baselines"]["predict_nothing"]["hd95_mm"] == pytest.approx((4**2 + 4**2 + 70**2) ** 0.5)
    assert summary["baselines"]["suv_2_5"] is None
    assert summary["failed"] == [{"case": "C", "error": "no"}]
    # One lesion each of A anterior, A posterior and B anterior; A posterior's was missed.
    assert summary["lesions"] == {"precision": 1, "recall": pytest.approx(2 / 3), "f1": pytest.approx(4 / 5)}


def test_datasets_of_missu_have_its_metrics():
    scores = [scored("A", "liver", 3, 6)]
    mean = summarise(scores, model="MISSU", dataset="CHAOS", split="Tr", baselines={})["mean"]
    assert mean["hd_mm"] == 21
    assert mean["accuracy"] == pytest.approx(1 - 12 / 160)
    header, row = per_case_csv(scores, dataset="CHAOS").splitlines()
    assert header.endswith(",hd_mm,accuracy")
    assert row.endswith(",21.00,0.9250")


def test_one_label_has_no_means_per_label():
    one = summarise([scored("A", "GTV", 1, 2)], model="S1", dataset="D", split="Ts", baselines={})
    assert "mean_per_label" not in one


def test_csv(scores):
    rows = list(csv.DictReader(io.StringIO(per_case_csv(scores, dataset="Bars"))))
    assert list(rows[0]) == [
        *("case", "label", "dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml", "missed", "seen"),
        *("lesions_matched", "lesions_predicted", "lesions_expected"),
    ]
    assert rows[0] == {
        "case": "A",
        "label": "anterior",
        "dice": "0.6667",
        "iou": "0.5000",
        "hd95_mm": "21.00",
        "surface_dice": rows[0]["surface_dice"],
        "volume_error_ml": "-0.084",
        "missed": "false",
        "seen": "true",
        "lesions_matched": "1",
        "lesions_predicted": "1",
        "lesions_expected": "1",
    }
    assert (rows[1]["dice"], rows[1]["hd95_mm"], rows[1]["missed"]) == ("0.0000", "", "true")
    assert (rows[3]["dice"], rows[3]["hd95_mm"], rows[3]["volume_error_ml"]) == ("", "", "0.000")


def test_table(summary):
    text = render(summary)
    lines = text.splitlines()
    assert lines[0] == "Bars, split Tr: mean over 2 cases"
    assert lines[2].split() == ["Dice", "IoU", "surface", "Dice", "3", "mm", "HD95", "mm", "volume", "error", "mL"]
    assert lines[3].split()[:3] == ["S1", "0.556", "0.500"]
    assert lines[4].split()[:2] == ["anterior", "0.833"]
    assert lines[6].startswith("predict nothing")
    assert lines[6].split()[2] == "0.000"
    assert "SUV" not in text
    assert "1 missed" in text
    assert "1 empty" in text
    assert "precision 1.000, recall 0.667, F1 0.800" in text
    assert len({len(line) for line in lines[2:7]}) == 1


def test_table_where_every_case_failed():
    text = render(summarise([], model="S1", dataset="D", split="Tr", baselines={"suv_2_5": []}))
    assert "mean over 0 cases" in text
    assert "-" in text


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"fold": 0, "training_patients": ["P1"], "tuning_patients": ["P2"], "validation_patients": ["P3"]}, "P1 P2"),
        ({"fold": "all", "dataset": "STS", "training_patients": ["P1"], "tuning_patients": []}, "P1"),
        ({"fold": "all", "dataset": "sts"}, "P1 P2 P3"),
        ({"fold": "all"}, "P1 P2 P3"),
        ({"fold": "all", "dataset": "Hippocampus"}, ""),
        ({"fold": 1}, ""),
        ({}, ""),
    ],
)
def test_seen(training, expected):
    seen = [patient for patient in ("P1", "P2", "P3") if was_seen(patient, "STS", training)]
    assert " ".join(seen) == expected
