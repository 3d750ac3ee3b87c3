"""Every arm's scores, patient by patient: trained runs, ensembles of them, and masks that need no training."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...progress import Progress
from ..baselines import CENTRED_ELLIPSOID, PREDICT_NOTHING, SUV_2_5, baseline_masks
from ..calibration import Reliability, brier_score, reliability
from ..detection import Detections, detection_map, detections
from ..lesions import LesionCounts
from ..scores import Score, mean_scores, score
from ..slices import empty_slices, slice_mean_dice
from .cases import Cohort, Volume, probabilities, read_prediction
from .study import (
    KEPT_OUT_FILE,
    KEPT_OUT_FOLDER,
    PER_CASE_FILE,
    PREDICTIONS_FOLDER,
    Fold,
    Run,
    Study,
    Unfinished,
)

TEACHERS_ENSEMBLE = "teachers_ensemble"
PRIOR_TITLES = {
    PREDICT_NOTHING: "predict nothing",
    CENTRED_ELLIPSOID: "centred ellipsoid",
    SUV_2_5: "SUV > 2.5",
}
STORED_DICE_TOLERANCE = 1e-4  # per_case.csv against the stored masks
NO_SEED = -1


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


def score_study(
    study: Study, cohort: Cohort, *, kept_out: bool = False
) -> tuple[dict[str, ArmResults], list[Unfinished]]:
    """Scores every run, ensemble and prior of a study, each run on its fold's val cases or on those kept out of all.

    Ensembles average the probabilities of their arms' runs of one fold: those of the same seed, or an arm's first seed
    where it does not have that one. Beside the declared ones, all runs that teach are averaged.

    Args:
        study: the runs.
        cohort: the references.
        kept_out: every run that was tested on the cases kept out of the cross-validation, on all cases of the cohort.

    Returns:
        Arms by name, in the order of the study, then ensembles and priors; and runs whose stored predictions cannot be
        used, which are in no figure.
    """
    ensembles = all_ensembles(study)
    found: dict[str, list[VolumeResult]] = {name: [] for name in [*study.order, *ensembles, *PRIOR_TITLES]}
    damaged: list[Unfinished] = []
    by_fold: dict[Fold, list[Run]] = {}
    for run in study.runs:
        if run.kept_out or not kept_out:
            by_fold.setdefault(run.fold, []).append(run)
    cases = {
        fold: cohort.cases_of(
            list(cohort.patients.values()) if kept_out else runs[0].manifest["patients"]["validation"]
        )
        for fold, runs in by_fold.items()
    }
    stored = (KEPT_OUT_FOLDER, KEPT_OUT_FILE) if kept_out else (PREDICTIONS_FOLDER, PER_CASE_FILE)
    with Progress(sum(map(len, cases.values())), "scoring stored predictions") as progress:
        for fold, runs in by_fold.items():
            scoring = _FoldScoring(fold, runs, ensembles, cohort, stored)
            for volume in cohort.volumes(cases[fold]):
                scoring.score(volume)
                progress.advance(len(volume.parts))
            for result in scoring.finish():
                found[result.arm].append(result)
            damaged += [
                Unfinished(arm=run.arm, fold=run.fold, seed=run.seed, why=why, damaged=True)
                for run, why in scoring.damaged.items()
            ]
    return {name: ArmResults(name=name, results=tuple(rows)) for name, rows in found.items() if rows}, damaged


def all_ensembles(study: Study) -> dict[str, tuple[str, ...]]:
    """The declared ensembles and, unless it is among them, that of all arms that teach, where there are several."""
    ensembles, teachers = dict(study.ensembles), teacher_arms(study)
    if len(teachers) > 1 and not any(set(arms) == set(teachers) for arms in ensembles.values()):
        ensembles[TEACHERS_ENSEMBLE] = tuple(teachers)
    return ensembles


def teacher_arms(study: Study) -> list[str]:
    """The arms whose runs teach others."""
    taught_by = {name for run in study.runs for name in run.teachers}
    return list(dict.fromkeys(run.arm for run in study.runs if run.folder.name in taught_by))


class _FoldScoring:
    """The runs of one fold, volume by volume, so that only one volume's predictions are held at a time."""

    def __init__(
        self,
        fold: Fold,
        runs: Sequence[Run],
        ensembles: Mapping[str, Sequence[str]],
        cohort: Cohort,
        stored: tuple[str, str],
    ) -> None:
        self.fold = fold
        self.cohort = cohort
        self.predictions, self.table = stored
        self.damaged: dict[Run, str] = {}
        self.of_runs: dict[Run, list[VolumeResult]] = {run: [] for run in runs}
        self.of_ensembles: list[tuple[str, int, list[Run], list[VolumeResult]]] = [
            (name, seed, members, []) for name, arms in ensembles.items() for seed, members in _members(arms, runs)
        ]
        self.of_priors: list[VolumeResult] = []

    def score(self, volume: Volume) -> None:
        """Scores all that there is of a volume."""
        stored = {}
        for run, results in self.of_runs.items():
            try:
                folder = run.folder / self.predictions
                label, stored[run] = read_prediction(folder, volume, self.cohort.classes)
            except InputError as error:
                self.damaged.setdefault(run, str(error))
                continue
            results.append(self._scored(run.arm, run.seed, volume, label, probabilities(stored[run])))
        for name, seed, members, results in self.of_ensembles:
            if all(run in stored for run in members):
                mean = sum(probabilities(stored[run]) for run in members) / np.float32(len(members))
                results.append(self._scored(name, seed, volume, mean.argmax(0), mean))
        for name, mask in baseline_masks(volume.label.shape, _suv(volume, self.cohort)).items():
            self.of_priors.append(self._scored(name, NO_SEED, volume, mask, None))

    def finish(self) -> Iterator[VolumeResult]:
        """The results of all that is whole."""
        for run, results in self.of_runs.items():
            try:
                _check_stored_dice(run.folder / self.table, results)
            except InputError as error:
                self.damaged.setdefault(run, str(error))
            if run not in self.damaged:
                yield from results
        for _, _, members, results in self.of_ensembles:
            if not any(run in self.damaged for run in members):
                yield from results
        yield from self.of_priors

    def _scored(
        self, arm: str, seed: int, volume: Volume, label: np.ndarray, probability: np.ndarray | None
    ) -> VolumeResult:
        """``label`` is a boolean mask for a prior, which is held against each label by itself."""
        reference = volume.label > 0
        foreground = label.astype(np.float32) if probability is None else 1 - probability[0]
        return VolumeResult(
            arm=arm,
            fold=self.fold,
            seed=seed,
            volume=volume.name,
            patient=volume.patient,
            scores=tuple(
                score(
                    label if probability is None else np.isin(label, values),
                    np.isin(volume.label, values),
                    spacing=self.cohort.spacing_zyx,
                    case=volume.name,
                    label=name,
                )
                for name, values in self.cohort.scored.items()
            ),
            slice_dice=slice_mean_dice(label > 0, reference),
            empty_slices=empty_slices(reference),
            slices=len(reference),
            reliability=None if probability is None else reliability(probability, volume.label),
            brier=None if probability is None else brier_score(probability, volume.label),
            detected=detections(detection_map(foreground), reference),
        )


def _check_stored_dice(file: Path, results: Sequence[VolumeResult]) -> None:
    """Refuses predictions that are not those which the run's own table of its cases was written for."""
    ours = {(one.case, one.label): one.dice for result in results for one in result.scores}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = {(row["case"], row["label"]): row["dice"] for row in csv.DictReader(stream)}
    except (OSError, KeyError) as error:
        raise InputError(f"{file} cannot be read ({error}): copy the run again.") from error
    for key, text in rows.items():
        theirs = float(text) if text else None
        # Slices that are stacked to volumes have no figure of their own here.
        if key in ours and not _same(ours[key], theirs):
            raise InputError(
                f"{file} says Dice {text or 'none'} of {key[0]}, its stored mask has {ours[key]}: the folder was "
                "changed, or the data is not that which the run was trained on; copy or train it again."
            )


def _same(one: float | None, other: float | None) -> bool:
    return one is other or (one is not None and other is not None and abs(one - other) <= STORED_DICE_TOLERANCE)


def _members(arms: Sequence[str], runs: Sequence[Run]) -> list[tuple[int, list[Run]]]:
    """The runs to average for each seed; none unless every arm has one."""
    by_seed = {arm: {run.seed: run for run in runs if run.arm == arm} for arm in arms}
    if not all(by_seed.values()):
        return []
    seeds = sorted({seed for found in by_seed.values() for seed in found})
    return [(seed, [found.get(seed, found[min(found)]) for found in by_seed.values()]) for seed in seeds]


def _suv(volume: Volume, cohort: Cohort) -> np.ndarray | None:
    """The PET of a volume in SUV, where it was scaled by a fixed number and can be told."""
    for index, channel in enumerate(cohort.channels):
        normalisation = channel["normalisation"]
        if isinstance(normalisation, Mapping) and normalisation.get("kind") == "scale_suv":
            return volume.image[index].astype(np.float32) * float(normalisation["divisor"])
    return None
