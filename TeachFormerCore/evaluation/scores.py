"""The scores of one mask against its reference, and their means over cases and labels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .lesions import LesionCounts, lesion_counts
from .overlap import accuracy, dice, iou, volume_error_ml
from .surface import surface_distances

SURFACE_DICE_TOLERANCE_MM = 3.0
METRICS = ("dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml")
MISSU_METRICS = ("hd_mm", "accuracy")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One label of one case.

    Dice, IoU and surface Dice (at 3 mm) are 0..1. Where prediction and reference are both empty there is nothing to
    score: they and HD95 are None. Where only one is empty they are 0 and HD95, which does not exist, is None. Where the
    places of the voxels are not known, surface Dice, distances and volumes are None and no lesions are counted.

    Attributes:
        missed: the reference has the label, the prediction does not.
        seen: the case's patient is among those the model was trained or tuned on.
        diagonal_mm: of the image, the distance that the mean takes for a missed label's HD95 and HD; None where the
            places of the voxels are not known.
        lesions: matched as `lesions` says.
        hd_mm: the Hausdorff distance, the maximum; MISSU reports it. One stray voxel decides it.
        accuracy: see `overlap.accuracy`; MISSU reports it.
    """

    case: str
    label: str
    dice: float | None
    iou: float | None
    hd95_mm: float | None
    surface_dice: float | None
    volume_error_ml: float | None
    missed: bool
    seen: bool
    diagonal_mm: float | None
    lesions: LesionCounts
    hd_mm: float | None
    accuracy: float

    @property
    def empty(self) -> bool:
        """Whether prediction and reference are both empty."""
        return self.dice is None

    @property
    def placed(self) -> bool:
        """Whether the places of the voxels are known."""
        return self.diagonal_mm is not None

    def row(self) -> dict[str, Any]:
        """The fields of a case in ``summary.json``, in their order."""
        left_out = ("diagonal_mm", "lesions", *MISSU_METRICS)
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def detailed_row(self) -> dict[str, Any]:
        """As `row`, with the counts of lesions and MISSU's metrics."""
        lesions = {f"lesions_{name}": count if self.placed else None for name, count in asdict(self.lesions).items()}
        return self.row() | lesions | {name: getattr(self, name) for name in MISSU_METRICS}


def reports_like_missu(dataset: str) -> bool:
    """Whether a dataset is one on which MISSU gives HD and accuracy; elsewhere they would only mislead."""
    return any(name in dataset.casefold() for name in ("brats", "chaos"))


def score(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing: Sequence[float] | None,
    case: str,
    label: str,
    seen: bool = False,
) -> Score:
    """Scores a mask.

    Args:
        prediction: boolean or 0/1, ``(z, y, x)``.
        reference: of the same shape.
        spacing: voxel edges in mm in the order of the array's axes: z, y, x; None where they are not known, as between
            single slices that were stacked.
        case: the case's name.
        label: the label's name.
        seen: see `Score`.

    Raises:
        ValueError: the shapes differ.
        MissingDependencyError: scipy or monai is not installed.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"The prediction {prediction.shape} and the reference {reference.shape} differ in shape.")
    prediction, reference = prediction.astype(bool, copy=False), reference.astype(bool, copy=False)
    unplaced = Score(
        case=case,
        label=label,
        dice=dice(prediction, reference),
        iou=iou(prediction, reference),
        hd95_mm=None,
        surface_dice=None,
        volume_error_ml=None,
        missed=bool(reference.any() and not prediction.any()),
        seen=seen,
        diagonal_mm=None,
        lesions=LesionCounts(),
        hd_mm=None,
        accuracy=accuracy(prediction, reference),
    )
    if spacing is None:
        return unplaced
    distances = surface_distances(prediction, reference, spacing)
    if distances is not None:
        surface_dice: float | None = distances.dice(SURFACE_DICE_TOLERANCE_MM)
    else:
        surface_dice = None if unplaced.empty else 0.0
    return replace(
        unplaced,
        hd95_mm=None if distances is None else distances.hausdorff_mm(95),
        surface_dice=surface_dice,
        volume_error_ml=volume_error_ml(prediction, reference, spacing),
        diagonal_mm=math.hypot(*(size * edge for size, edge in zip(reference.shape, spacing, strict=True))),
        lesions=lesion_counts(prediction, reference),
        hd_mm=None if distances is None else distances.hausdorff_mm(100),
    )


def mean_scores(scores: Iterable[Score], metrics: Sequence[str] = METRICS) -> dict[str, float | None]:
    """The mean of each metric over those scores that have it, or None where none has.

    A missed label counts with the image's diagonal as its HD95 or HD: left out, a model that misses most of its cases
    would read as well as its few hits. A false alarm where the reference is empty has Dice 0 and no HD95.
    """
    scores = list(scores)
    means: dict[str, float | None] = {}
    for metric in metrics:
        values = [getattr(one, metric) for one in scores]
        if metric in ("hd95_mm", "hd_mm"):
            values = [one.diagonal_mm if one.missed else value for one, value in zip(scores, values, strict=True)]
        values = [value for value in values if value is not None]
        means[metric] = math.fsum(values) / len(values) if values else None
    return means
