"""PI-CAI's score, (AUROC + AP) / 2: does a case have a lesion, and where are they?

The definition is the challenge's (Saha et al., Lancet Oncol 2024, and its public evaluator). A detection map holds
lesion candidates, each with one confidence. AUROC is over cases: has it a lesion, ranked by the highest confidence.
AP is over the candidates and lesions of all cases: a candidate is true where it is matched with a lesion (as in
`lesions`), a lesion without a match is never found, and a candidate that overlaps a lesion which another candidate took
counts neither way. Candidates here are the connected parts of more than 10 voxels with a probability of at least 0.1,
the least size and the fixed threshold of the challenge's own extractor (report_guided_annotation); the highest
probability in a part is its confidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .lesions import components, match, overlap_matrix

LEAST_PROBABILITY = 0.1
LEAST_VOXELS = 11


@dataclass(frozen=True, kw_only=True)
class Detections:
    """What was detected in one case.

    Attributes:
        positive: whether the case has a lesion; None where lesions cannot be told apart: it is in no score.
        confidence: of the case, 0..1.
        candidates: confidence and truth of each candidate that counts.
        missed: lesions that no candidate is matched with.
    """

    positive: bool | None
    confidence: float
    candidates: tuple[tuple[float, bool], ...]
    missed: int


UNKNOWN = Detections(positive=None, confidence=0.0, candidates=(), missed=0)


def detection_map(probability: np.ndarray) -> np.ndarray:
    """Lesion candidates of a probability map of any shape: within each its confidence, in the map's type; else 0."""
    parts, count = components(probability >= LEAST_PROBABILITY)
    if not count:
        return np.zeros_like(probability)
    from scipy import ndimage

    confidences = np.zeros(count + 1, probability.dtype)
    confidences[1:] = ndimage.maximum(probability, parts, np.arange(1, count + 1))
    confidences[np.bincount(parts.ravel(), minlength=count + 1) < LEAST_VOXELS] = 0
    confidences[0] = 0
    return confidences[parts]


def detections(detected: np.ndarray, reference: np.ndarray) -> Detections:
    """Holds a detection map against a boolean mask of the same shape."""
    parts, count = components(detected > 0)
    confidences = [float(detected[parts == number].max()) for number in range(1, count + 1)]
    expected, expected_count = components(reference)
    overlaps = overlap_matrix(expected, expected_count, parts, count)
    found = {column for _, column in match(overlaps)}
    taken = {int(column) for column in np.flatnonzero((overlaps > 0).any(axis=0))} - found
    return Detections(
        positive=bool(expected_count),
        confidence=max(confidences, default=0.0),
        candidates=tuple((value, i in found) for i, value in enumerate(confidences) if i not in taken),
        missed=expected_count - len(found),
    )


def picai_score(cases: Sequence[Detections]) -> dict[str, float | None]:
    """``auroc``, ``average_precision`` and their mean ``score``, 0..1; None where they do not exist.

    AUROC needs a case with and one without a lesion, average precision a lesion.
    """
    known = [case for case in cases if case.positive is not None]
    area = auroc([case.confidence for case in known], [bool(case.positive) for case in known])
    candidates = [candidate for case in known for candidate in case.candidates]
    precision = average_precision(
        [value for value, _ in candidates], [true for _, true in candidates], sum(case.missed for case in known)
    )
    score = None if area is None or precision is None else (area + precision) / 2
    return {"auroc": area, "average_precision": precision, "score": score}


def auroc(confidence: Sequence[float], positive: Sequence[bool]) -> float | None:
    """The part of pairs of a positive and a negative in which the positive ranks higher, ties counting half."""
    values, truth = np.asarray(confidence, float), np.asarray(positive, bool)
    above, below = values[truth], values[~truth]
    if not len(above) or not len(below):
        return None
    difference = above[:, None] - below[None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def average_precision(confidence: Sequence[float], true: Sequence[bool], missed: int) -> float | None:
    """Sum over the thresholds of precision times the recall gained there; ``missed`` lesions are never gained."""
    values, truth = np.asarray(confidence, float), np.asarray(true, bool)
    lesions = int(truth.sum()) + missed
    if not lesions:
        return None
    area, recall = 0.0, 0.0
    for threshold in np.unique(values)[::-1]:
        kept = values >= threshold
        hits = int((truth & kept).sum())
        area += hits / int(kept.sum()) * (hits / lesions - recall)
        recall = hits / lesions
    return area
