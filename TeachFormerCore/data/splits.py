"""Cross-validation folds: made once per dataset, grouped by patient, and read back with every check.

Everything here is a pure function of names, lesion volumes and a seed: random orders come from SHA-256, so that they
are the same on every platform, with every library version and in any order of the files.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .dataset import Case, Dataset, compile_pattern

TUNE_FRACTION = 0.15

Splits = list[dict[str, list[str]]]  # nnU-Net's splits_final.json: per fold the case names of "train" and "val"


@dataclass(frozen=True, kw_only=True)
class FoldSplit:
    """The cases of one fold, sorted, no patient in two of the three.

    ``val_cases`` are reported once, with final weights; every choice is made on ``tune_cases``. By the paper's protocol
    there are none of these, and ``val_cases`` choose too.
    """

    train_cases: tuple[str, ...]
    tune_cases: tuple[str, ...]
    val_cases: tuple[str, ...]


def make_splits(dataset: Dataset, *, folds: int = 5, seed: int = 0, groups: Mapping[str, str] | None = None) -> Splits:
    """Folds in which each patient is in exactly one ``val``, with lesions of all sizes in every fold.

    Patients are sorted by total lesion volume and dealt, ``folds`` at a time, to the folds in a random order. With
    ``groups`` naming at least as many centres as there are folds, whole centres are dealt instead, the largest first to
    the fold with the fewest patients; with fewer centres they are ignored.

    Args:
        dataset: labelled cases.
        folds: at least 2, at most the number of patients.
        seed: another seed gives other folds.
        groups: the centre of each patient where known; a patient without one is a centre of its own.

    Raises:
        InputError: too few patients, or a label that is missing or unreadable.
    """
    patients = set(dataset.patients().values())
    if folds < 2 or folds > len(patients):
        raise InputError(
            f"{dataset.folder} holds {len(patients)} patients, which cannot be split into {folds} folds: "
            f"ask for 2 to {len(patients)}."
        )
    volumes = dict.fromkeys(patients, 0.0)
    for case in dataset.cases:
        volumes[case.patient] += lesion_volume_ml(case)
    centres = {patient: (groups or {}).get(patient) for patient in patients}
    if enough_centres(centres.values(), folds):
        fold_of = _deal_centres(volumes, centres, folds, seed)
    else:
        fold_of = _deal_patients(volumes, folds, seed)
    splits: Splits = [
        {
            "train": sorted(case.name for case in dataset.cases if fold_of[case.patient] != fold),
            "val": sorted(case.name for case in dataset.cases if fold_of[case.patient] == fold),
        }
        for fold in range(folds)
    ]
    assert not split_faults(splits, dataset.patients())
    return splits


def lesion_volume_ml(case: Case) -> float:
    """Volume of everything that is not background in a case's label, rounded to a cubic millimetre's thousandth.

    Raises:
        InputError: the case has no label, or one that cannot be read.
    """
    from .image import read_image, voxels  # SimpleITK, which reading a splits file does not need

    if case.label is None:
        raise InputError(f"The case '{case.name}' has no label: only labelled cases can be split.")
    image = read_image(case.label, single_slice=True)
    x, y, z = image.GetSpacing()
    return round(int((voxels(image) != 0).sum()) * x * y * z / 1000, 6)


def patient_centres(dataset: Dataset, pattern: str | None = None) -> dict[str, str]:
    """The centre of each patient whose case names the pattern fits, or as the dataset lists them.

    Args:
        dataset: its ``centre_pattern``, else its ``centres``, are used where ``pattern`` is not given.
        pattern: regular expression with one group, matched at the start of the case name.

    Raises:
        InputError: not a pattern, one that fits no case, or a patient of two centres.
    """
    compiled = compile_pattern(pattern or dataset.centre_pattern, "centre")
    if compiled is None:
        present = set(dataset.patients().values())
        return {patient: centre for patient, centre in dataset.centres.items() if patient in present}
    centres: dict[str, str] = {}
    for case in dataset.cases:
        match = compiled.match(case.name)
        if match is None:
            continue
        centre = match.group(1)
        if centres.setdefault(case.patient, centre) != centre:
            raise InputError(
                f"The centre pattern '{compiled.pattern}' gives the patient '{case.patient}' two centres, "
                f"'{centres[case.patient]}' and '{centre}'."
            )
    if not centres:
        raise InputError(
            f"The centre pattern '{compiled.pattern}' fits no case, e.g. not '{dataset.cases[0].name}': it is matched "
            "at the start of the case name."
        )
    return centres


def enough_centres(centres: Iterable[str | None], folds: int) -> bool:
    """Whether centres are known and at least as many as the folds, a patient of unknown centre being one."""
    named = list(centres)
    known = {centre for centre in named if centre is not None}
    return bool(known) and len(known) + named.count(None) >= folds


def tune_patients(train_patients: Iterable[str], *, seed: int, fraction: float = TUNE_FRACTION) -> list[str]:
    """The training patients kept for early stopping and every other choice, sorted; the order given does not matter.

    Args:
        train_patients: a fold's training patients.
        seed: another seed draws other patients.
        fraction: of the patients, rounded to the nearest, at least one patient and never all.

    Raises:
        InputError: fewer than two patients.
    """
    patients = sorted(set(train_patients))
    if len(patients) < 2:
        raise InputError(
            f"A fold with {len(patients)} training patient(s) cannot keep any for tuning: it needs at least 2."
        )
    count = min(max(1, int(fraction * len(patients) + 0.5)), len(patients) - 1)
    # The whole list is part of the key: each fold then draws anew, and no patient is kept for tuning in every fold.
    return sorted(_shuffled(patients, "tune", seed, *patients)[:count])


def load_splits(path: str | Path) -> Splits:
    """The folds of a file in nnU-Net's ``splits_final.json`` form, by shape alone.

    Raises:
        InputError: no such file, or not of that form.
    """
    path = Path(path)
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"The splits file {path} does not exist: make it with 'teachformer data split'.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"The splits file {path} could not be read as JSON ({error}).") from error
    if not isinstance(splits, list) or not splits or not all(_is_fold(fold) for fold in splits):
        raise InputError(
            f"{path} is not a splits file: it must hold a list of folds, each with the lists of case names 'train' and "
            "'val' (nnU-Net's splits_final.json)."
        )
    return [{"train": fold["train"], "val": fold["val"]} for fold in splits]


def _is_fold(fold: Any) -> bool:
    return isinstance(fold, dict) and all(
        isinstance(fold.get(side), list) and all(isinstance(name, str) for name in fold[side])
        for side in ("train", "val")
    )


def split_faults(splits: Sequence[Mapping[str, Sequence[str]]], patients: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is wrong with folds, as (case, sentence): unknown cases, patients on both sides or in two ``val``.

    Args:
        splits: the folds.
        patients: the patient of each case of the dataset.
    """
    faults: list[tuple[str, str]] = []
    val_fold: dict[str, int] = {}
    for number, fold in enumerate(splits):
        members: dict[str, dict[str, str]] = {"train": {}, "val": {}}  # per side, patient -> its first case
        for side, patient_case in members.items():
            for name, count in Counter(fold[side]).items():
                if name not in patients:
                    faults.append((name, f"fold {number} names '{name}' in {side}: the dataset has no such case"))
                    continue
                if count > 1:
                    faults.append((name, f"fold {number} names '{name}' {count} times in {side}"))
                patient_case.setdefault(patients[name], name)
        for patient, case in members["val"].items():
            if patient in members["train"]:
                faults.append((case, f"the patient '{patient}' is in train and in val of fold {number}"))
            first = val_fold.setdefault(patient, number)
            if first != number:
                faults.append((case, f"the patient '{patient}' is in val of fold {first} and of fold {number}"))
    return faults


def read_splits(
    path: str | Path | None, fold: int | str, patients: Mapping[str, str], *, seed: int, tuned: bool = True
) -> FoldSplit:
    """One fold of a splits file, its training cases parted into those to train and those to tune on.

    Args:
        path: the splits file; None (every case of the dataset) only with the fold ``"all"``.
        fold: a number from 0, or ``"all"``: every case of the file, none of them kept for ``val``.
        patients: the patient of each case of the dataset (``Dataset.patients()``).
        seed: of ``tune_patients``.
        tuned: whether some are kept to tune on; else all of them train.

    Raises:
        InputError: a bad file, a fold it does not have, an unknown case, a patient on both sides.
    """
    everything = str(fold) == "all"
    if path is None:
        if not everything:
            raise InputError(
                f"Fold {fold} needs a splits file: make it with 'teachformer data split', or use fold 'all'."
            )
        train, val = set(patients), set[str]()
    else:
        splits = load_splits(path)
        faults = split_faults(splits, patients)
        if faults:
            more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
            raise InputError(f"The splits file {path} cannot be used: {faults[0][1]}{more}.")
        if everything:
            train, val = {name for each in splits for name in [*each["train"], *each["val"]]}, set()
        else:
            chosen = splits[_fold_number(fold, len(splits), path)]
            train, val = set(chosen["train"]), set(chosen["val"])
    tune = set(tune_patients({patients[name] for name in train}, seed=seed)) if tuned else set[str]()
    return FoldSplit(
        train_cases=tuple(sorted(name for name in train if patients[name] not in tune)),
        tune_cases=tuple(sorted(name for name in train if patients[name] in tune)),
        val_cases=tuple(sorted(val)),
    )


def _fold_number(fold: int | str, count: int, path: str | Path) -> int:
    number = int(fold) if str(fold).isdecimal() else -1
    if not 0 <= number < count:
        raise InputError(f"The splits file {path} has no fold {fold}: give a number from 0 to {count - 1}, or 'all'.")
    return number


def _deal_patients(volumes: Mapping[str, float], folds: int, seed: int) -> dict[str, int]:
    ordered = sorted(volumes, key=lambda patient: (-volumes[patient], patient))
    strata = [ordered[start : start + folds] for start in range(0, len(ordered), folds)]
    return {patient: fold for stratum in strata for fold, patient in enumerate(_shuffled(stratum, "fold", seed))}


def _deal_centres(
    volumes: Mapping[str, float], centres: Mapping[str, str | None], folds: int, seed: int
) -> dict[str, int]:
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    for patient, centre in centres.items():
        members["patient" if centre is None else "centre", centre or patient].append(patient)
    by_key = {"/".join(key): patients for key, patients in members.items()}
    size, volume = [0] * folds, [0.0] * folds
    fold_of: dict[str, int] = {}
    order = sorted(_shuffled(sorted(by_key), "centre", seed), key=lambda key: -len(by_key[key]))
    for key in order:
        fold = min(range(folds), key=lambda number: (size[number], volume[number], number))
        size[fold] += len(by_key[key])
        volume[fold] += sum(volumes[patient] for patient in by_key[key])
        fold_of |= dict.fromkeys(by_key[key], fold)
    return fold_of


def _shuffled(names: Iterable[str], *key: object) -> list[str]:
    """The names in a random order that is a function of them and the key alone."""

    def digest(name: str) -> bytes:
        return hashlib.sha256(json.dumps([*map(str, key), name]).encode()).digest()

    return sorted(names, key=lambda name: (digest(name), name))
