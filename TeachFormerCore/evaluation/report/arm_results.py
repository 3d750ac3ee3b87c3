"""The scores of an arm: volume by volume, and their means over patients, folds and seeds."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..calibration import Reliability
from ..detection import Detections
from ..lesions import LesionCounts
from ..scores import Score, mean_scores
from .study import Fold

Label = tuple[str, str]  # the case and the label


@dataclass(frozen=True, kw_only=True)
class VolumeResult:
    """One arm, fold and seed on one volume.

    Attributes:
        scores: one for each label.
        slice_dice: mean over 2D slices of the union of the labels, see `slices`.
        empty_slices: of the reference; ``slices`` is how many there are.
        reliability, brier: None where there are no probabilities.
        detected: lesion candidates.
    """

    arm: str
    fold: Fold
    seed: int
    volume: str
    patient: str
    scores: tuple[Score, ...]
    slice_dice: float
    empty_slices: int
    slices: int
    reliability: Reliability | None
    brier: float | None
    detected: Detections


@dataclass(frozen=True, kw_only=True)
class ArmResults:
    """An arm on all the volumes that it was scored on.

    Attributes:
        name: as in the cross-validation.
        results: over folds, seeds and volumes.
    """

    name: str
    results: tuple[VolumeResult, ...]

    @cached_property
    def scores(self) -> dict[str, list[Score]]:
        """Of each patient, over labels, cases and seeds."""
        by_patient: dict[str, list[Score]] = {}
        for result in self.results:
            by_patient.setdefault(result.patient, []).extend(result.scores)
        return dict(sorted(by_patient.items()))

    @cached_property
    def patients(self) -> dict[str, dict[str, float | None]]:
        """The mean of each metric for each patient, over labels, cases and seeds; see `told_labels`."""
        return {patient: mean_scores(_told(scores, told_labels(scores))) for patient, scores in self.scores.items()}

    @property
    def folds(self) -> list[Fold]:
        """Folds it was scored on."""
        return sorted({result.fold for result in self.results}, key=str)

    @property
    def seeds(self) -> list[int]:
        """Seeds it was trained with."""
        return sorted({result.seed for result in self.results})

    def values(self, metric: str, patients: Iterable[str] | None = None) -> dict[str, float]:
        """A metric of the patients that have it."""
        chosen = self.patients if patients is None else [name for name in patients if name in self.patients]
        values = {name: self.patients[name][metric] for name in chosen}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def absolute_volume_error_ml(self) -> float | None:
        """The mean over patients, mL: errors of both signs do not cancel."""
        errors = {patient: [one.volume_error_ml for one in scores] for patient, scores in self.scores.items()}
        return average(average(abs(one) for one in known if one is not None) for known in errors.values())

    def mean(self, metric: str, patients: Iterable[str] | None = None) -> float | None:
        """The mean over patients."""
        return average(self.values(metric, patients).values())

    def fold_means(self, metric: str) -> list[float]:
        """The mean over the patients of each fold."""
        means = [self.only(fold=fold).mean(metric) for fold in self.folds]
        return [value for value in means if value is not None]

    def seed_means(self, metric: str) -> list[float]:
        """The mean over the patients of each seed, of those seeds that were scored on every patient."""
        parts = [self.only(seed=seed) for seed in self.seeds]
        means = [part.mean(metric) for part in parts if part.patients.keys() == self.patients.keys()]
        return [value for value in means if value is not None]

    def only(self, *, fold: Fold | None = None, seed: int | None = None) -> "ArmResults":
        """The part of one fold or one seed."""
        kept = (r for r in self.results if fold in (None, r.fold) and seed in (None, r.seed))
        return ArmResults(name=self.name, results=tuple(kept))

    @property
    def empty(self) -> float:
        """How many labels of volumes a run leaves empty that are empty in the reference too, see `_labels_of_a_run`."""
        return self._labels_of_a_run(lambda score: score.empty)

    @property
    def missed(self) -> float:
        """How many labels of volumes a run misses altogether, see `_labels_of_a_run`."""
        return self._labels_of_a_run(lambda score: score.missed)

    def _labels_of_a_run(self, holds: Callable[[Score], bool]) -> float:
        """For how many labels something holds: each counts by the part of the runs scored on it for which it does."""
        by_label: dict[Label, list[bool]] = {}
        for result in self.results:
            for one in result.scores:
                by_label.setdefault((one.case, one.label), []).append(holds(one))
        return math.fsum(sum(runs) / len(runs) for runs in by_label.values())

    @property
    def lesions(self) -> LesionCounts:
        """Over all rows."""
        return sum((one.lesions for result in self.results for one in result.scores), LesionCounts())

    @property
    def calibration_error(self) -> float | None:
        """ECE over the voxels of all volumes."""
        parts = [result.reliability for result in self.results]
        known = [part for part in parts if part is not None]
        return sum(known[1:], known[0]).expected_calibration_error if known else None

    @property
    def brier(self) -> float | None:
        """The mean over volumes."""
        return average(result.brier for result in self.results)

    @property
    def slice_dice(self) -> float | None:
        """The mean over the slices of all volumes."""
        total = sum(result.slices for result in self.results)
        return sum(result.slice_dice * result.slices for result in self.results) / total if total else None


def told_labels(scores: Iterable[Score]) -> set[Label]:
    """The labels that one of the scores has a value of: where it is a false alarm, to be empty is right, and says so.

    A label that is empty in the reference and in every prediction tells nothing, and is in no mean.
    """
    return {(one.case, one.label) for one in scores if not one.empty}


def shared_values(arms: Sequence[ArmResults], metric: str) -> list[dict[str, float]]:
    """A metric of the same patients for each of some arms: of all patients that every arm was scored on.

    A prediction that is rightly empty, where another one of these arms or another seed raises a false alarm, has Dice,
    IoU and surface Dice 1. Patients of whom an arm has no value even so, e.g. no HD95 of a false alarm, are left out.
    """
    found: list[dict[str, float]] = [{} for _ in arms]
    for patient in sorted(set.intersection(*(set(arm.scores) for arm in arms))):
        told = told_labels(one for arm in arms for one in arm.scores[patient])
        means = [mean_scores(_told(arm.scores[patient], told), (metric,))[metric] for arm in arms]
        known = [value for value in means if value is not None]
        if len(known) == len(arms):
            for values, value in zip(found, known, strict=True):
                values[patient] = value
    return found


def _told(scores: Iterable[Score], told: set[Label]) -> list[Score]:
    return [
        replace(one, dice=1.0, iou=1.0, surface_dice=1.0 if one.placed else None)
        if one.empty and (one.case, one.label) in told
        else one
        for one in scores
    ]


def average(values: Iterable[float | None]) -> float | None:
    """The mean of what is there."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
