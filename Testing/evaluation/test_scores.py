"""The rules for empty and missed labels, and the means."""

import math

import numpy as np
import pytest

from TeachFormerCore.evaluation.scores import Score, mean_scores, reports_like_missu, score

SPACING = (4.0, 2.0, 1.0)  # of 10 x 20 x 40 voxels: 40 mm on every side
DIAGONAL = math.sqrt(3) * 40


def cube(start: int | None, size: int = 4) -> np.ndarray:
    mask = np.zeros((10, 20, 40), np.uint8)
    if start is not None:
        mask[2:6, 5:10, start : start + size] = 1
    return mask


def scored(prediction: np.ndarray, reference: np.ndarray, **more) -> Score:
    return score(prediction, reference, spacing=SPACING, case="A", label="GTV", **more)


def test_a_hit():
    one = scored(cube(12), cube(10), seen=True)
    assert one.row() == {
        "case": "A",
        "label": "GTV",
        "dice": pytest.approx(0.5),
        "iou": pytest.approx(1 / 3),
        "hd95_mm": pytest.approx(2),
        "surface_dice": 1.0,
        "volume_error_ml": 0.0,
        "missed": False,
        "seen": True,
    }
    lesions = {"lesions_matched": 1, "lesions_predicted": 1, "lesions_expected": 1}
    missu = {"hd_mm": pytest.approx(2), "accuracy": pytest.approx(1 - 80 / 8000)}
    assert one.detailed_row() == one.row() | lesions | missu
    assert one.diagonal_mm == pytest.approx(DIAGONAL)
    assert not one.empty


def test_both_empty_is_not_scored():
    one = scored(cube(None), cube(None))
    assert one.empty
    assert (one.dice, one.iou, one.hd95_mm, one.surface_dice) == (None, None, None, None)
    assert (one.volume_error_ml, one.missed) == (0, False)


@pytest.mark.parametrize(("prediction", "reference"), [(12, 10), (None, 10), (10, None), (None, None)])
def test_without_a_spacing_only_overlap_is_scored(prediction: int | None, reference: int | None):
    masks = cube(prediction), cube(reference)
    known, unknown = scored(*masks), score(*masks, spacing=None, case="A", label="GTV")
    assert known.placed
    assert not unknown.placed
    same = ("dice", "iou", "missed", "empty", "accuracy")
    assert [getattr(unknown, name) for name in same] == [getattr(known, name) for name in same]
    left_out = ("hd95_mm", "hd_mm", "surface_dice", "volume_error_ml", "diagonal_mm")
    assert all(getattr(unknown, name) is None for name in left_out)
    assert unknown.detailed_row()["lesions_expected"] is None
    assert (unknown.lesions.precision, unknown.lesions.recall, unknown.lesions.f1) == (None, None, None)


def test_a_missed_label_without_a_spacing_has_no_distance_in_the_mean():
    missed = score(cube(None), cube(10), spacing=None, case="A", label="GTV")
    assert mean_scores([missed]) == {
        "dice": 0,
        "iou": 0,
        "hd95_mm": None,
        "surface_dice": None,
        "volume_error_ml": None,
    }
    assert mean_scores([missed, scored(cube(12), cube(10))])["hd95_mm"] == pytest.approx(2)


def test_missed():
    one = scored(cube(None), cube(10))
    assert (one.dice, one.iou, one.hd95_mm, one.surface_dice, one.missed) == (0, 0, None, 0, True)
    assert one.volume_error_ml == pytest.approx(-4 * 5 * 4 * 8 / 1000)


def test_false_alarm_is_not_missed():
    one = scored(cube(10), cube(None))
    assert (one.dice, one.iou, one.hd95_mm, one.surface_dice, one.missed) == (0, 0, None, 0, False)
    assert one.volume_error_ml == pytest.approx(+4 * 5 * 4 * 8 / 1000)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        scored(cube(1)[1:], cube(1))


def test_means_leave_out_what_does_not_exist_but_count_misses():
    hit, miss = scored(cube(12), cube(10)), scored(cube(None), cube(10))
    empty, alarm = scored(cube(None), cube(None)), scored(cube(10), cube(None))
    mean = mean_scores([hit, miss, empty, alarm])
    assert mean["dice"] == pytest.approx((0.5 + 0 + 0) / 3)
    assert mean["iou"] == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert mean["surface_dice"] == pytest.approx(1 / 3)
    # The image's diagonal for the miss; nothing for the empty case and the false alarm.
    assert mean["hd95_mm"] == pytest.approx((2 + DIAGONAL) / 2)
    assert mean["volume_error_ml"] == pytest.approx((0 - 0.64 + 0 + 0.64) / 4)


def test_mean_of_the_largest_distance_counts_misses_too():
    hit, miss = scored(cube(13), cube(10)), scored(cube(None), cube(10))
    mean = mean_scores([hit, miss], ("hd_mm", "accuracy"))
    assert mean == {"hd_mm": pytest.approx((3 + DIAGONAL) / 2), "accuracy": pytest.approx(1 - (120 + 80) / 8000 / 2)}


@pytest.mark.parametrize(("dataset", "expected"), [("BraTS19", True), ("CHAOS_MR", True), ("STS_PETCT_MR", False)])
def test_only_the_datasets_of_missu_get_its_metrics(dataset, expected):
    assert reports_like_missu(dataset) is expected


def test_means_of_nothing_are_null():
    empty = scored(cube(None), cube(None))
    assert mean_scores([]) == dict.fromkeys(("dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml"))
    assert mean_scores([empty]) == {
        "dice": None,
        "iou": None,
        "hd95_mm": None,
        "surface_dice": None,
        "volume_error_ml": 0,
    }
