"""Lesions matched by hand."""

import numpy as np
import pytest

from TeachFormerCore.evaluation.lesions import LesionCounts, components, lesion_counts, match, overlap_matrix


def line(*runs: tuple[int, int], length: int = 40) -> np.ndarray:
    """A row of voxels with runs (start, length) set."""
    mask = np.zeros((1, 1, length), bool)
    for start, size in runs:
        mask[0, 0, start : start + size] = True
    return mask


def test_found_missed_and_invented():
    # 0..10 is found, 20..30 missed, 32..36 invented.
    counts = lesion_counts(line((0, 8), (32, 4)), line((0, 10), (20, 10)))
    assert counts == LesionCounts(matched=1, predicted=2, expected=2)
    assert (counts.precision, counts.recall, counts.f1) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("size", "matched"), [(1, 1), (0, 0)])
def test_a_tenth_is_enough(size, matched):
    # One of ten voxels: IoU exactly 0.1.
    prediction = line((0, 1)) if size else np.zeros((1, 1, 40), bool)
    assert lesion_counts(prediction, line((0, 10))).matched == matched


def test_below_a_tenth_is_not():
    assert lesion_counts(line((0, 1)), line((0, 11))).matched == 0


def test_each_lesion_is_matched_once():
    # Two parts of one lesion: one is it, the other too many.
    assert lesion_counts(line((0, 4), (6, 4)), line((0, 10))) == LesionCounts(matched=1, predicted=2, expected=1)
    # One prediction over two lesions finds one of them.
    assert lesion_counts(line((0, 10)), line((0, 4), (6, 4))) == LesionCounts(matched=1, predicted=1, expected=2)


def test_most_pairs_before_most_overlap():
    # The greedy choice (0.9) leaves the second lesion without a partner.
    overlaps = np.array([[0.9, 0.2], [0.3, 0.0]])
    assert match(overlaps) == [(0, 1), (1, 0)]


def test_three_small_overlaps_outweigh_two_large():
    overlaps = np.array([[0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [0.0, 0.0, 0.1]])
    assert match(overlaps) == [(0, 0), (1, 1), (2, 2)]


def test_corners_connect():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert components(mask)[1] == 1


def test_overlap_matrix_is_iou():
    expected, predicted = components(line((0, 10), (20, 5))), components(line((5, 10), (20, 5)))
    matrix = overlap_matrix(*expected, *predicted)
    assert matrix == pytest.approx(np.array([[5 / 15, 0], [0, 1]]))


def test_nothing_has_no_precision_or_recall():
    empty = lesion_counts(line(), line())
    assert (empty.precision, empty.recall, empty.f1) == (None, None, None)
    missed = lesion_counts(line(), line((0, 4)))
    assert (missed.precision, missed.recall, missed.f1) == (None, 0, 0)


def test_counts_of_cases_add_up():
    total = sum([lesion_counts(line((0, 4)), line((0, 4))), lesion_counts(line((0, 4)), line())], LesionCounts())
    assert total == LesionCounts(matched=1, predicted=2, expected=1)
    assert total.f1 == pytest.approx(2 / 3)
