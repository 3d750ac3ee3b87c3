"""Whether probabilities mean what they say: expected calibration error, Brier score, the temperature that helps."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BINS = 15
TEMPERATURES = (0.1, 10.0)  # a network without an error on the few cases it is fitted on would ask for 0
TOLERANCE = 1e-3  # of a temperature, relative
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Voxels by the probability of their most probable class, in equal bins over 0..1; cases add up.

    Attributes:
        counts: voxels per bin.
        confidence: sum of those probabilities per bin.
        correct: voxels per bin whose most probable class is the true one.
    """

    counts: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(
            counts=self.counts + other.counts,
            confidence=self.confidence + other.confidence,
            correct=self.correct + other.correct,
        )

    @property
    def expected_calibration_error(self) -> float:
        """Mean over voxels of |accuracy - confidence| of their bin, 0..1 (Guo et al. 2017, Eq. 3)."""
        return float(np.abs(self.correct - self.confidence).sum() / max(1, self.counts.sum()))


def reliability(probabilities: np.ndarray, label: np.ndarray, *, bins: int = BINS) -> Reliability:
    """The bins of one case.

    Args:
        probabilities: ``(classes, *S)``, their sum 1.
        label: ``(*S)``, whole numbers below ``classes``.
        bins: how many.

    Raises:
        ValueError: the shapes do not belong together.
    """
    _check(probabilities, label)
    confidence = probabilities.max(0).ravel().astype(np.float64)
    correct = (probabilities.argmax(0) == label).ravel()
    # A bin includes its upper end, as Guo et al. have it; 1 is in the last one.
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return Reliability(
        counts=np.bincount(bin_of, minlength=bins),
        confidence=np.bincount(bin_of, weights=confidence, minlength=bins),
        correct=np.bincount(bin_of, weights=correct, minlength=bins),
    )


def expected_calibration_error(probabilities: np.ndarray, label: np.ndarray, *, bins: int = BINS) -> float:
    """ECE of one case, see :func:`reliability`."""
    return reliability(probabilities, label, bins=bins).expected_calibration_error


def brier_score(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Mean over voxels of the squared distance to the one-hot truth, summed over the classes: 0..2 (Brier 1950).

    Args:
        probabilities: ``(classes, *S)``, their sum 1.
        label: ``(*S)``, whole numbers below ``classes``.

    Raises:
        ValueError: the shapes do not belong together.
    """
    _check(probabilities, label)
    squared = [np.square(p - (label == value), dtype=np.float64).mean() for value, p in enumerate(probabilities)]
    return float(sum(squared))


def fit_temperature(logits: "Tensor", label: "Tensor") -> float:
    """The T for which softmax(logits / T) has the smallest negative log-likelihood (Guo et al. 2017, section 4.2).

    The likelihood is convex in 1 / T, so that a golden-section search over log T finds the one minimum.

    Args:
        logits: ``(N, classes)``; log probabilities are logits too.
        label: ``(N,)``, whole numbers.

    Returns:
        Within ``TEMPERATURES``.
    """
    from torch.nn import functional as F

    logits, label = logits.double(), label.long()

    def cost(position: float) -> float:
        return float(F.cross_entropy(logits / math.exp(position), label))

    low, high = (math.log(limit) for limit in TEMPERATURES)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    cost_left, cost_right = cost(left), cost(right)
    while high - low > TOLERANCE:
        if cost_left < cost_right:
            high, right, cost_right = right, left, cost_left
            left = high - GOLDEN * (high - low)
            cost_left = cost(left)
        else:
            low, left, cost_left = left, right, cost_right
            right = low + GOLDEN * (high - low)
            cost_right = cost(right)
    return math.exp((low + high) / 2)


def _check(probabilities: np.ndarray, label: np.ndarray) -> None:
    if probabilities.shape[1:] != label.shape:
        raise ValueError(f"The probabilities {probabilities.shape} and the label {label.shape} do not belong together.")
