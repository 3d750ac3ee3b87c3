"""Scores every arm of a study: trained runs, ensembles of them, and masks that need no training."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...progress import Progress
from ...run_files import KEPT_OUT_FILE, KEPT_OUT_FOLDER, PER_CASE_FILE, PREDICTIONS_FOLDER, read_per_case
from ..baselines import CENTRED_ELLIPSOID, PREDICT_NOTHING, SUV_2_5, baseline_masks
from ..calibration import brier_score, reliability
from ..detection import UNKNOWN, detection_map, detections
from ..scores import score
from ..slices import empty_slices, slice_mean_dice
from .arm_results import ArmResults, VolumeResult
from .cases import Cohort, Volume, probabilities, read_prediction
from .stored_scores import StoredScores
from .study import Fold, Run, Study, Unfinished

TEACHERS_ENSEMBLE = "teachers_ensemble"
PRIOR_TITLES = {
    PREDICT_NOTHING: "predict nothing",
    CENTRED_ELLIPSOID: "centred ellipsoid",
    SUV_2_5: "SUV > 2.5",
}
STORED_DICE_TOLERANCE = 1e-4  # per_case.csv against the stored masks
NO_SEED = -1


def score_study(
    study: Study, cohort: Cohort, *, kept_out: bool = False, stored: StoredScores | None = None
) -> tuple[dict[str, ArmResults], list[Unfinished]]:
    """Scores every run, ensemble and prior of a study, each run on its fold's val cases or on those kept out of all.

    Ensembles average the probabilities of their arms' runs of one fold: those of the same seed, or an arm's first seed
    where it does not have that one. Beside the declared ones, all runs that teach are averaged.

    Args:
        study: the runs.
        cohort: the references.
        kept_out: every run that was tested on the cases kept out of the cross-validation, on all cases of the cohort.
        stored: scores of an earlier report, for runs whose predictions are gone; what is scored here is added to it.

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
        fold: sorted(cohort.patients) if kept_out else cohort.cases_of(runs[0].manifest["patients"]["validation"])
        for fold, runs in by_fold.items()
    }
    stored = stored or StoredScores()
    with Progress(sum(map(len, cases.values())), "scoring stored predictions") as progress:
        for fold, runs in sorted(by_fold.items(), key=lambda one: str(one[0])):
            scoring = _FoldScoring(fold, runs, ensembles, cohort, kept_out, stored)
            for volume in cohort.volumes(cases[fold]):
                scoring.score(volume)
                progress.advance(len(volume.parts))
            for result in scoring.finish():
                found[result.arm].append(result)
            damaged += [run.unusable(why) for run, why in scoring.damaged.items()]
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
        kept_out: bool,
        stored: StoredScores,
    ) -> None:
        self.fold = fold
        self.cohort = cohort
        self.kept_out = kept_out
        self.stored = stored
        self.predictions = KEPT_OUT_FOLDER if kept_out else PREDICTIONS_FOLDER
        self.table = KEPT_OUT_FILE if kept_out else PER_CASE_FILE
        self.damaged: dict[Run, str] = {}
        self.of_runs: dict[Run, list[VolumeResult]] = {run: self._found([run], run.arm, run.seed) for run in runs}
        self.of_ensembles: list[tuple[str, int, list[Run], list[VolumeResult]]] = [
            (name, seed, members, self._found(members, name, seed))
            for name, arms in ensembles.items()
            for seed, members in _members(arms, runs)
        ]
        self.earlier = [run for run, results in self.of_runs.items() if results]
        self.of_priors: list[VolumeResult] = []
        self.tabled: set[tuple[str, str]] = set()  # case and label of every row that a run's own table must have

    def score(self, volume: Volume) -> None:
        """Scores all that there is of a volume."""
        self.tabled |= {(case, label) for case in volume.parts for label in self.cohort.labels}
        stored = {}
        for run, results in self.of_runs.items():
            if run in self.earlier:
                continue
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
                _check_stored_dice(run.folder / self.table, results, self.tabled)
            except InputError as error:
                self.damaged.setdefault(run, str(error))
            if run not in self.damaged:
                self.stored.add([run], results, kept_out=self.kept_out)
                yield from results
        for _, _, members, results in self.of_ensembles:
            if results and not any(run in self.damaged for run in members):
                self.stored.add(members, results, kept_out=self.kept_out)
                yield from results
        yield from self.of_priors

    def _found(self, members: Sequence[Run], arm: str, seed: int) -> list[VolumeResult]:
        """Earlier scores, where predictions are gone."""
        if all((run.folder / self.predictions).is_dir() for run in members):
            return []
        return self.stored.find(members, kept_out=self.kept_out, arm=arm, fold=self.fold, seed=seed)

    def _scored(
        self, arm: str, seed: int, volume: Volume, label: np.ndarray, probability: np.ndarray | None
    ) -> VolumeResult:
        """``label`` is a boolean mask for a prior, which is held against each label by itself."""
        reference = volume.label > 0
        # In double precision, or what is nearly certain would be all the same.
        foreground = label.astype(float) if probability is None else 1 - probability[0].astype(float)
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
                    spacing=volume.spacing,
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
            detected=detections(detection_map(foreground), reference) if volume.spacing else UNKNOWN,
        )


def _check_stored_dice(file: Path, results: Sequence[VolumeResult], tabled: set[tuple[str, str]]) -> None:
    """Refuses predictions that are not those which the run's own table of its cases was written for."""
    ours = {(one.case, one.label): one.dice for result in results for one in result.scores}
    rows = read_per_case(file)
    if missing := sorted(tabled - rows.keys()):
        raise InputError(f"{file} has no row of {missing[0][0]}, {missing[0][1]}: copy the run again.")
    for key, theirs in rows.items():
        # Slices that are stacked to volumes have no figure of their own here.
        if key in ours and not _same(ours[key], theirs):
            raise InputError(
                f"{file} says Dice {'none' if theirs is None else theirs} of {key[0]}, its stored mask has "
                f"{ours[key]}: the folder was changed, or the data is not that which the run was trained on; copy or "
                "train it again."
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
