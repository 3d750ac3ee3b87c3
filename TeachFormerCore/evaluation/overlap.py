"""How much two masks share, and by how much their volumes differ."""

from collections.abc import Sequence

import numpy as np


def dice(prediction: np.ndarray, reference: np.ndarray) -> float | None:
    """``2 |P and R| / (|P| + |R|)``, 0..1, of two boolean masks of one shape; None where both are empty."""
    total = int(np.count_nonzero(prediction) + np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(prediction & reference)) / total if total else None


def iou(prediction: np.ndarray, reference: np.ndarray) -> float | None:
    """``|P and R| / |P or R|``, 0..1, of two boolean masks of one shape; None where both are empty."""
    union = int(np.count_nonzero(prediction | reference))
    return int(np.count_nonzero(prediction & reference)) / union if union else None


def accuracy(prediction: np.ndarray, reference: np.ndarray) -> float:
    """The part of all voxels, 0..1, on which two boolean masks agree: MISSU's ACC on CHAOS.

    It grows with the background around the organ and is reported beside others' figures only.
    """
    return int(np.count_nonzero(prediction == reference)) / prediction.size


def volume_error_ml(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> float:
    """Volume of the prediction minus that of the reference in mL; ``spacing`` in mm."""
    difference = np.count_nonzero(prediction) - np.count_nonzero(reference)
    return float(difference * np.prod(np.asarray(spacing, float)) / 1000)
