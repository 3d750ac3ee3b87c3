"""What a run stores of its cases: fine at both ends, old files too, and stacked slices without distances."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from studies import ARMS, PATIENTS, cohort_of, write_prepared, write_study

from TeachFormerCore.data.prepared import open_prepared
from TeachFormerCore.errors import InputError
from TeachFormerCore.evaluation.detection import picai_score
from TeachFormerCore.evaluation.report.cases import (
    Cohort,
    Volume,
    foreground_logits,
    probabilities,
    read_prediction,
)
from TeachFormerCore.evaluation.report.results import score_study
from TeachFormerCore.evaluation.report.stored_scores import StoredScores, read_scores
from TeachFormerCore.evaluation.report.study import Run, Study, read_study


def softmax(logits: np.ndarray) -> np.ndarray:
    every = np.exp(logits - logits.max(axis=0))
    return (every / every.sum(axis=0)).astype(np.float32)


def test_the_order_is_kept_at_both_ends():
    certain = np.array([-30, -20, -12, -8, 0, 8, 12, 20, 30])
    made = probabilities(foreground_logits(softmax(np.stack([0 * certain, certain]))).astype(np.float16))
    assert made.dtype == np.float32
    assert np.all(np.diff(made[1, :5]) > 0)
    assert np.all(np.diff(1 - made[0, 4:].astype(float)) > 0)
    assert made.sum(axis=0) == pytest.approx(1)


def test_probabilities_come_back():
    logits = np.linspace(-15, 15, 20001)
    two = softmax(np.stack([0 * logits, logits]))
    assert np.abs(probabilities(foreground_logits(two).astype(np.float16)) - two).max() < 2e-4
    three = softmax(np.random.default_rng(0).normal(0, 4, (3, 5, 6, 7)))
    assert probabilities(foreground_logits(three)) == pytest.approx(three, abs=1e-6)
    sure = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], np.float32)
    assert probabilities(foreground_logits(sure).astype(np.float16)) == pytest.approx(sure, abs=1e-6)


def volume(shape: tuple[int, int, int]) -> Volume:
    label = np.zeros(shape, np.uint8)
    return Volume(name="A", patient="A", image=label[None], label=label, parts=("A",), spacing=(1.0, 1.0, 1.0))


def test_probabilities_stored_as_bytes_are_still_read(tmp_path: Path):
    """Runs before the logits have ``foreground``, 255 for 1."""
    foreground = np.random.default_rng(1).integers(0, 128, (2, 3, 4, 5)).astype(np.uint8)
    foreground[:, 0, 0, 0], foreground[:, 0, 0, 1] = (255, 0), (0, 0)
    save_file({"label": np.zeros((3, 4, 5), np.uint8), "foreground": foreground}, tmp_path / "A.safetensors")
    made = probabilities(read_prediction(tmp_path, volume((3, 4, 5)), 3)[1])
    assert np.array_equal(made[1:], foreground / np.float32(255))
    assert made.sum(axis=0) == pytest.approx(1, abs=1e-6)


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path):
    logits = np.full((1, 3, 4, 5), np.nan, np.float16)
    save_file({"label": np.zeros((3, 4, 5), np.uint8), "logits": logits}, tmp_path / "A.safetensors")
    with pytest.raises(InputError, match="is not a prediction of 2 classes"):
        read_prediction(tmp_path, volume((3, 4, 5)), 2)


def test_the_surest_candidate_ranks_first(tmp_path: Path):
    """One lesion is found with 0.9999, a false alarm has 0.9985: in bytes both were 1, and AP 0.5."""
    label = np.zeros((4, 12, 12), np.uint8)
    label[1:3, 1:5, 1:5] = 1
    chance = np.full(label.shape, 1e-6)
    chance[1:3, 1:5, 1:5], chance[1:3, 7:11, 7:11] = 0.9999, 0.9985
    predicted = (chance > 0.5).astype(np.uint8)
    logits = foreground_logits(np.stack([1 - chance, chance])).astype(np.float16)
    (tmp_path / "predictions").mkdir()
    save_file({"label": predicted, "logits": logits}, tmp_path / "predictions" / "A.safetensors")
    (tmp_path / "per_case.csv").write_text(f"case,label,dice,loss\nA,lesion,{64 / 96:.6f},0\n", encoding="utf-8")
    manifest = {"config": {"fold": 0, "seed": 0}, "patients": {"validation": ["A"]}, "teachers": []}
    study = Study(
        name="s",
        protocols={},
        runs=(Run(arm="one", folder=tmp_path, manifest=manifest),),
        unfinished=(),
        ensembles={},
        order=("one",),
    )
    cohort = Cohort(
        dataset="boxes",
        licence=None,
        patients={"A": "A"},
        labels={"lesion": 1},
        spacing=(1.0, 1.0, 3.0),
        channels=[{"name": "MR", "normalisation": {"kind": "z_score"}}],
        load=lambda case: (np.zeros((1, *label.shape), np.float16), label),
    )
    results, damaged = score_study(study, cohort)
    assert damaged == []
    assert picai_score([one.detected for one in results["one"].results])["average_precision"] == 1


def test_stacked_slices_have_overlap_and_no_distances(tmp_path: Path):
    """Slices of a patient are missing between the others, and nothing tells which: no figure may depend on it."""
    data = write_prepared(tmp_path / "prepared", PATIENTS[:2], slices=12)
    folder = write_study(
        tmp_path / "cv", data, [PATIENTS[:2]], arms={"student": ARMS["student"]}, window=(32, 32), ensemble=False
    )
    study, cohort = read_study([folder]), cohort_of(data)
    stored = StoredScores()
    results, damaged = score_study(study, cohort, stored=stored)
    assert damaged == []
    for name in ("student", "predict_nothing"):
        found = results[name]
        assert found.mean("dice") is not None
        for metric in ("hd95_mm", "surface_dice", "volume_error_ml"):
            assert found.mean(metric) is None
        assert (found.lesions.precision, found.lesions.recall) == (None, None)
        assert set(picai_score([one.detected for one in found.results]).values()) == {None}
    # As a later report reads them.
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(stored.as_json(), allow_nan=False), encoding="utf-8")
    [again] = read_scores(file).earlier.values()
    ours = [replace(result, arm="", fold="", seed=0, reliability=None) for result in results["student"].results]
    assert [replace(result, reliability=None) for result in again] == ours


def test_volumes_keep_their_spacing(tmp_path: Path):
    data = write_prepared(tmp_path / "prepared", PATIENTS[:1])
    [whole] = cohort_of(data).volumes(["P0"])
    assert whole.spacing == (3.0, 3.0, 3.0)
    sliced = write_prepared(tmp_path / "sliced", PATIENTS[:1], slices=3)
    [stack] = cohort_of(sliced).volumes(list(open_prepared(sliced).plan.patients))
    assert (stack.spacing, len(stack.parts)) == (None, 3)
    assert load_file(sliced / f"{stack.parts[0]}.safetensors")["label"].shape[0] == 1
