"""Dice, IoU and volume error against counts made by hand."""

import numpy as np
import pytest

from TeachFormerCore.evaluation.overlap import dice, iou, volume_error_ml


def mask(count: int, start: int = 0) -> np.ndarray:
    flat = np.zeros(24, bool)
    flat[start : start + count] = True
    return flat.reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected_dice", "expected_iou"),
    [
        (mask(6), mask(6), 1.0, 1.0),
        (mask(6), mask(6, start=3), 0.5, 3 / 9),
        (mask(2), mask(6), 2 * 2 / 8, 2 / 6),
        (mask(6), mask(6, start=6), 0.0, 0.0),
        (mask(0), mask(6), 0.0, 0.0),
        (mask(6), mask(0), 0.0, 0.0),
    ],
)
def test_overlaps(prediction, reference, expected_dice, expected_iou):
    assert dice(prediction, reference) == pytest.approx(expected_dice, abs=1e-15)
    assert iou(prediction, reference) == pytest.approx(expected_iou, abs=1e-15)


def test_two_empty_masks_have_no_score():
    assert dice(mask(0), mask(0)) is None
    assert iou(mask(0), mask(0)) is None


def test_volume_error_is_prediction_minus_reference():
    # 4 voxels of 1.5 x 2 x 5 mm less than the reference.
    assert volume_error_ml(mask(2), mask(6), (5, 2, 1.5)) == pytest.approx(-4 * 15 / 1000)
    assert volume_error_ml(mask(6), mask(2), (5, 2, 1.5)) == pytest.approx(+4 * 15 / 1000)
    assert volume_error_ml(mask(0), mask(0), (5, 2, 1.5)) == 0
