"""PI-CAI's score: closed forms, and the challenge's own evaluator where it is installed."""

import numpy as np
import pytest

from TeachFormerCore.evaluation.detection import (
    UNKNOWN,
    Detections,
    auroc,
    average_precision,
    detection_map,
    detections,
    picai_score,
)


def random_case(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A detection map and a reference with a few boxes each, some on the same places, some confidences equal."""
    detected, reference = np.zeros((8, 24, 24), np.float32), np.zeros((8, 24, 24), np.int32)
    for z, y, x in random.integers(0, (5, 18, 18), (random.integers(0, 4), 3)):
        reference[z : z + 3, y : y + 4, x : x + 4] = 1
        if random.random() < 0.7:
            y, x = y + random.integers(0, 3), x + random.integers(0, 3)
            part = detected[z : z + 2, y : y + 3, x : x + 3]
            part[:] = np.maximum(part, np.float32(round(random.random(), 1)))
    for z, y, x in random.integers(0, (6, 20, 20), (random.integers(0, 3), 3)):
        detected[z : z + 2, y : y + 2, x : x + 2] = np.float32(round(random.random(), 1))
    return detected, reference


def whole_parts(detected: np.ndarray) -> np.ndarray:
    """The same with one confidence in each connected part, as a detection map has."""
    from TeachFormerCore.evaluation.lesions import components

    parts, count = components(detected > 0)
    for number in range(1, count + 1):
        detected[parts == number] = detected[parts == number].max()
    return detected


def test_auroc_counts_pairs():
    assert auroc([0.9, 0.8, 0.3, 0.1], [True, True, False, False]) == 1
    assert auroc([0.9, 0.2, 0.3, 0.1], [True, True, False, False]) == 3 / 4
    assert auroc([0.5, 0.5], [True, False]) == 0.5
    assert auroc([0.5, 0.4], [True, True]) is None


def test_average_precision_by_hand():
    # Hit, false alarm, hit; a third lesion is never found: 1/3 * 1 + 1/3 * 2/3.
    assert average_precision([0.9, 0.5, 0.2], [True, False, True], 1) == pytest.approx(1 / 3 + 2 / 9)
    assert average_precision([], [], 2) == 0
    assert average_precision([0.4], [False], 0) is None


def test_equal_confidences_are_one_threshold():
    assert average_precision([0.5, 0.5], [True, False], 0) == 0.5


def test_detection_map_keeps_likely_parts_of_more_than_ten_voxels():
    probability = np.zeros((1, 10, 20), np.float32)
    probability[0, 0, :11] = np.linspace(0.2, 0.7, 11)
    probability[0, 3, :10] = 0.9  # ten voxels
    probability[0, 6, :] = 0.09  # too unlikely
    found = detection_map(probability)
    assert np.flatnonzero(found.any(axis=2)[0]).tolist() == [0]
    assert found[0, 0, :11] == pytest.approx(0.7)
    assert not detection_map(np.zeros((2, 3, 4))).any()


def test_candidates_are_those_of_the_challenges_extractor():
    extractor = pytest.importorskip(
        "report_guided_annotation", reason="report_guided_annotation, which picai_eval brings, is not installed"
    )
    random = np.random.default_rng(3)
    for density in (0.02, 0.05, 0.08):  # of voxels that join up to parts of all sizes about the least one
        probability = np.where(random.random((12, 40, 40)) < density, random.uniform(0.05, 1, (12, 40, 40)), 0.0)
        theirs, _, _ = extractor.extract_lesion_candidates(probability, threshold=0.1)
        assert np.array_equal(detection_map(probability), theirs)


def test_the_confidence_is_as_precise_as_the_map():
    probability = np.full((1, 3, 20), 0.0)
    probability[0, 0], probability[0, 2] = 1 - 1e-10, 1 - 1e-12
    found = detection_map(probability)
    assert found[0, 0, 0] < found[0, 2, 0] < 1


def test_a_second_candidate_on_a_lesion_counts_neither_way():
    reference = np.zeros((1, 1, 20), bool)
    reference[0, 0, :10] = True
    detected = np.zeros((1, 1, 20), np.float32)
    detected[0, 0, :5], detected[0, 0, 6:10], detected[0, 0, 15:18] = 0.3, 0.8, 0.6
    found = detections(detected, reference)
    assert found == Detections(
        positive=True,
        confidence=pytest.approx(0.8),
        candidates=((pytest.approx(0.3), True), (pytest.approx(0.6), False)),
        missed=0,
    )


def test_score_is_the_mean_of_both():
    sure = Detections(positive=True, confidence=0.9, candidates=((0.9, True),), missed=0)
    clean = Detections(positive=False, confidence=0.0, candidates=(), missed=0)
    assert picai_score([sure, clean]) == {"auroc": 1, "average_precision": 1, "score": 1}
    assert picai_score([sure]) == {"auroc": None, "average_precision": 1, "score": None}


def test_a_case_whose_lesions_cannot_be_told_apart_is_in_no_score():
    missed = Detections(positive=True, confidence=0.0, candidates=((0.8, False),), missed=1)
    clean = Detections(positive=False, confidence=0.2, candidates=(), missed=0)
    assert picai_score([missed, UNKNOWN, clean, UNKNOWN]) == picai_score([missed, clean])
    assert picai_score([UNKNOWN]) == dict.fromkeys(("auroc", "average_precision", "score"))


def test_agrees_with_the_challenges_evaluator():
    picai_eval = pytest.importorskip(
        "picai_eval", reason="picai_eval (Apache-2.0), a development extra, is not installed"
    )
    random = np.random.default_rng(11)
    for _ in range(3):
        cases = [random_case(random) for _ in range(12)]
        maps = [whole_parts(detected) for detected, _ in cases]
        theirs = picai_eval.evaluate(maps, [reference for _, reference in cases], num_parallel_calls=1)
        ours = picai_score(
            [detections(found, reference > 0) for found, (_, reference) in zip(maps, cases, strict=True)]
        )
        assert 0.2 < theirs.score < 1
        assert ours["auroc"] == pytest.approx(theirs.auroc, abs=1e-12)
        assert ours["average_precision"] == pytest.approx(theirs.AP, abs=1e-12)
        assert ours["score"] == pytest.approx(theirs.score, abs=1e-12)
