"""Lesions found, missed and invented: connected parts of two masks matched with each other.

A lesion is a part connected through faces, edges or corners (26 neighbours in 3D). A predicted and a reference lesion
may be matched where their IoU is at least 0.1, the rule of PI-CAI; each is matched at most once, so that as many are
matched as possible and, among those choices, the sum of the IoUs is greatest. Precision is the part of the predicted
lesions that are matched, recall that of the reference's.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import missing_dependency

LEAST_IOU = 0.1


@dataclass(frozen=True, kw_only=True)
class LesionCounts:
    """How many lesions were matched; counts of several cases are added.

    Attributes:
        matched: pairs.
        predicted: lesions of the prediction.
        expected: lesions of the reference.
    """

    matched: int = 0
    predicted: int = 0
    expected: int = 0

    def __add__(self, other: "LesionCounts") -> "LesionCounts":
        return LesionCounts(
            matched=self.matched + other.matched,
            predicted=self.predicted + other.predicted,
            expected=self.expected + other.expected,
        )

    @property
    def precision(self) -> float | None:
        """0..1; None where nothing was predicted."""
        return self.matched / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """0..1; None where there is nothing to find."""
        return self.matched / self.expected if self.expected else None

    @property
    def f1(self) -> float | None:
        """``2 matched / (predicted + expected)``, 0..1; None where both are 0."""
        total = self.predicted + self.expected
        return 2 * self.matched / total if total else None


def lesion_counts(prediction: np.ndarray, reference: np.ndarray) -> LesionCounts:
    """The lesions of two boolean masks of one shape, any number of dimensions.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    predicted, predicted_count = components(prediction)
    expected, expected_count = components(reference)
    overlaps = overlap_matrix(expected, expected_count, predicted, predicted_count)
    return LesionCounts(matched=len(match(overlaps)), predicted=predicted_count, expected=expected_count)


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """An array with 1, 2, ... in each connected part and 0 elsewhere, and the number of parts.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise missing_dependency("scipy", extra="report", purpose="tell the lesions of a mask apart") from error
    return ndimage.label(mask, structure=np.ones((3,) * mask.ndim))


def overlap_matrix(
    expected: np.ndarray, expected_count: int, predicted: np.ndarray, predicted_count: int
) -> np.ndarray:
    """``(expected_count, predicted_count)``: IoU of each pair of numbered parts, 0 where it is below `LEAST_IOU`."""
    if not expected_count or not predicted_count:
        return np.zeros((expected_count, predicted_count))
    pairs = expected.ravel().astype(np.int64) * (predicted_count + 1) + predicted.ravel()
    counts = np.bincount(pairs, minlength=(expected_count + 1) * (predicted_count + 1))
    counts = counts.reshape(expected_count + 1, predicted_count + 1).astype(float)
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    overlaps = (counts / np.maximum(union, 1))[1:, 1:]
    return np.where(overlaps >= LEAST_IOU, overlaps, 0.0)


def match(overlaps: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns of the matched pairs of `overlap_matrix`: most pairs first, then the greatest sum of IoUs."""
    from scipy.optimize import linear_sum_assignment

    gain = np.where(overlaps > 0, overlaps + 1 + min(overlaps.shape), 0.0)  # one more pair outweighs any IoU
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if overlaps[row, column] > 0]
