"""The scores of an arm: volume by volume, and their means over patients, folds and seeds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ..calibration import Reliability
from ..detection import Detections
from ..lesions import LesionCounts
from ..scores import Score, mean_scores
from .study import Fold


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
    def patients(self) -> dict[str, dict[str, float | None]]:
        """The mean of each metric for each patient, over labels, cases and seeds: the values that are compared."""
        by_patient: dict[str, list[Score]] = {}
        for result in self.results:
            by_patient.setdefault(result.patient, []).extend(result.scores)
        return {patient: mean_scores(scores) for patient, scores in sorted(by_patient.items())}

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
    def empty(self) -> int:
        """Labels of volumes that are empty in both masks, with whatever seed: they are not in the means."""
        return len({(one.case, one.label) for result in self.results for one in result.scores if one.empty})

    @property
    def missed(self) -> int:
        """Labels of volumes that were missed altogether, with whatever seed."""
        return len({(one.case, one.label) for result in self.results for one in result.scores if one.missed})

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


def average(values: Iterable[float | None]) -> float | None:
    """The mean of what is there."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
