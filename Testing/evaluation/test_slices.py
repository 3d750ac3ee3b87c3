"""Means over slices, and why they stand beside volume-level figures only."""

import numpy as np
import pytest

from TeachFormerCore.evaluation.overlap import accuracy, dice
from TeachFormerCore.evaluation.slices import empty_slices, slice_mean_dice


def test_predicting_nothing_looks_good():
    reference = np.zeros((24, 8, 8), bool)
    reference[9:15, 2:5, 2:5] = True
    nothing = np.zeros_like(reference)
    assert empty_slices(reference) == 18
    assert slice_mean_dice(nothing, reference) == 18 / 24
    assert dice(nothing, reference) == 0
    assert accuracy(nothing, reference) == pytest.approx(1 - 54 / 1536)


def test_mean_of_slices():
    reference, prediction = np.zeros((2, 3, 4, 4), bool)
    reference[0, 0, 0] = True
    prediction[0, 0, 0] = prediction[1, 0, 0] = True
    # A perfect slice, a false alarm, an empty one.
    reference[0] = prediction[0]
    assert slice_mean_dice(prediction, reference) == pytest.approx(2 / 3)
