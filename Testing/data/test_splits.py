"""Folds: grouped, stratified, the same everywhere, and refused when a file of them is bad."""

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from TeachFormerCore.data import splits as module
from TeachFormerCore.data.dataset import Case, Dataset, open_dataset
from TeachFormerCore.data.splits import (
    lesion_volume_ml,
    load_splits,
    make_splits,
    patient_centres,
    read_splits,
    split_faults,
    tune_patients,
)
from TeachFormerCore.errors import InputError

COMMITTED = Path(__file__).parents[2] / "Training" / "splits" / "STS_PETCT_MR.json"


def dataset_of(patients: dict[str, str], **more: str) -> Dataset:
    """A dataset that is nowhere on disk: the patient of each case."""
    cases = tuple(Case(name=name, patient=patient, images={}, label=None) for name, patient in sorted(patients.items()))
    return Dataset(
        folder=Path("nowhere"),
        name="toy",
        channels=("CT",),
        labels={"background": 0, "GTV": 1},
        licence=None,
        reference=None,
        cases=cases,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def volumes(monkeypatch):
    """Lesion volumes by case name, in place of reading labels; 1 mL where not set."""
    table: dict[str, float] = {}
    monkeypatch.setattr(module, "lesion_volume_ml", lambda case: table.get(case.name, 1.0))
    return table


def test_lesion_volume(make_dataset):
    dataset = open_dataset(make_dataset({"a": 10, "b": 0}))  # voxels of 2 x 3 x 4 mm
    assert [lesion_volume_ml(case) for case in dataset.cases] == [0.24, 0.0]
    (dataset.cases[0].label or Path()).unlink()
    with pytest.raises(InputError, match=r"a\.nii\.gz does not exist"):
        make_splits(dataset, folds=2)


def test_a_case_without_label_cannot_be_split():
    with pytest.raises(InputError, match="case 'a' has no label"):
        make_splits(dataset_of({"a": "a", "b": "b"}), folds=2)


def test_a_patient_stays_together(volumes):
    patients = {f"p{number:02d}_{visit}": f"p{number:02d}" for number in range(11) for visit in range(1 + number % 4)}
    splits = make_splits(dataset_of(patients), folds=3)
    assert sorted(name for fold in splits for name in fold["val"]) == sorted(patients)
    for fold in splits:
        assert sorted(fold["train"] + fold["val"]) == sorted(patients)
        assert not {patients[name] for name in fold["train"]} & {patients[name] for name in fold["val"]}
    counts = [len({patients[name] for name in fold["val"]}) for fold in splits]
    assert sorted(counts) == [3, 4, 4]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_fold_gets_lesions_of_every_size(volumes, seed):
    names = [f"p{number:02d}" for number in range(20)]
    volumes |= {name: float((7 * number) % 20) for number, name in enumerate(names)}  # 0..19, each once
    splits = make_splits(dataset_of({name: name for name in names}), folds=4, seed=seed)
    for fold in splits:  # strata of four from the largest: 19..16, 15..12, ...
        assert sorted(volumes[name] // 4 for name in fold["val"]) == [0, 1, 2, 3, 4]


def test_the_volume_is_the_patients_total(volumes):
    """Two patients of two small lesions outweigh four of one larger one; so they share a stratum, not a fold."""
    patients = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c": "c", "d": "d", "e": "e", "f": "f"}
    volumes |= {"a1": 3, "a2": 3, "b1": 3, "b2": 3, "c": 5, "d": 5, "e": 1, "f": 1}
    for seed in range(8):
        for fold in make_splits(dataset_of(patients), folds=2, seed=seed):
            kept = {patients[name] for name in fold["val"]}
            assert [len(kept & pair) for pair in ({"a", "b"}, {"c", "d"}, {"e", "f"})] == [1, 1, 1]


def test_stored_folds(volumes):
    """These folds, on every platform and for ever: published splits must stay what they are."""
    names = list("abcdefgh")
    volumes |= {name: float(number // 2) for number, name in enumerate(names)}
    dataset = dataset_of({name: name for name in names})
    expected = [["a", "d", "g"], ["b", "e", "f"], ["c", "h"]]
    assert [fold["val"] for fold in make_splits(dataset, folds=3, seed=4)] == expected
    mixed = dataclasses.replace(dataset, cases=dataset.cases[::-1])
    assert [fold["val"] for fold in make_splits(mixed, folds=3, seed=4)] == expected
    assert len({json.dumps(make_splits(dataset, folds=3, seed=seed)) for seed in range(10)}) > 5


def test_too_few_patients(volumes):
    dataset = dataset_of({"a1": "a", "a2": "a", "b": "b"})
    for folds in (0, 1, 3):
        with pytest.raises(InputError, match=f"2 patients, which cannot be split into {folds} folds"):
            make_splits(dataset, folds=folds)


def test_centres_stay_together(volumes):
    sizes = {"A": 9, "B": 5, "C": 4, "D": 3, "E": 2}
    names = [f"{centre}_{number}" for centre, size in sizes.items() for number in range(size)]
    dataset = dataset_of({name: name for name in names}, centre_pattern="([A-Z])_")
    centres = patient_centres(dataset)
    assert centres == {name: name[0] for name in names}
    for seed in range(5):
        splits = make_splits(dataset, folds=3, seed=seed, groups=centres)
        # The largest first, each to the smallest fold: 9 | 5 + 2 | 4 + 3.
        assert sorted("".join(sorted({name[0] for name in fold["val"]})) for fold in splits) == ["A", "BE", "CD"]


def test_fewer_centres_than_folds_are_ignored(volumes):
    names = [f"{centre}_{number}" for centre in "AB" for number in range(6)]
    dataset = dataset_of({name: name for name in names})
    centres = patient_centres(dataset, "([A-Z])_")
    assert make_splits(dataset, folds=3, groups=centres) == make_splits(dataset, folds=3)


def test_patients_of_unknown_centre_are_centres_of_their_own(volumes):
    names = ["A_1", "A_2", "A_3", "x", "y", "z"]
    dataset = dataset_of({name: name for name in names})
    splits = make_splits(dataset, folds=2, groups=patient_centres(dataset, "([A-Z])_"))
    assert sorted(fold["val"] for fold in splits) == [["A_1", "A_2", "A_3"], ["x", "y", "z"]]


def test_bad_centre_patterns():
    dataset = dataset_of({"A_p1": "p1", "B_p1": "p1", "B_p2": "p2"})
    with pytest.raises(InputError, match=r"fits no case, e\.g\. not 'A_p1'"):
        patient_centres(dataset, "(centre)")
    with pytest.raises(InputError, match="gives the patient 'p1' two centres, 'A' and 'B'"):
        patient_centres(dataset, "([A-Z])_")
    with pytest.raises(InputError, match="exactly one group, the centre"):
        patient_centres(dataset, "[A-Z]_")
    assert patient_centres(dataset) == {}


def test_stored_tune_patients():
    patients = [f"p{number}" for number in range(10)]
    assert tune_patients(patients, seed=0) == ["p1", "p7"]
    assert tune_patients(patients, seed=1) == ["p4", "p5"]


@settings(max_examples=40, deadline=None)
@given(st.sets(st.text(max_size=5), min_size=2, max_size=60), st.integers(0, 2**40))
def test_tune_patients(patients, seed):
    tune = tune_patients(patients, seed=seed)
    assert tune == tune_patients(sorted(patients, reverse=True), seed=seed) == sorted(set(tune))
    assert set(tune) < patients
    assert abs(len(tune) - 0.15 * len(patients)) <= 0.5 or len(tune) == 1


def test_every_patient_is_drawn_about_equally_often():
    patients = [f"p{number:02d}" for number in range(20)]
    counts = Counter(name for seed in range(400) for name in tune_patients(patients, seed=seed))
    assert sum(counts.values()) == 1200
    assert all(35 <= counts[name] <= 90 for name in patients)  # 60 expected, standard deviation 7


def test_one_patient_cannot_be_tuned_on():
    with pytest.raises(InputError, match="1 training patient"):
        tune_patients(["a"], seed=0)


PATIENTS = {f"p{number}_{visit}": f"p{number}" for number in range(8) for visit in "ab"}


@pytest.fixture
def splits_file(tmp_path, volumes):
    file = tmp_path / "splits.json"
    file.write_text(json.dumps(make_splits(dataset_of(PATIENTS), folds=4)))
    return file


@pytest.mark.parametrize("fold", [0, 3, "2"])
def test_a_fold_is_parted_by_patient(splits_file, fold):
    split = read_splits(splits_file, fold, PATIENTS, seed=3)
    parts = [split.train_cases, split.tune_cases, split.val_cases]
    assert sorted(name for part in parts for name in part) == sorted(PATIENTS)
    assert [len(part) for part in parts] == [10, 2, 4]
    patients = [{PATIENTS[name] for name in part} for part in parts]
    assert [len(part) for part in patients] == [5, 1, 2]
    assert list(split.val_cases) == load_splits(splits_file)[int(fold)]["val"]
    assert patients[1] == set(tune_patients(patients[0] | patients[1], seed=3))
    assert all(list(part) == sorted(part) for part in parts)


def test_all_folds(splits_file):
    split = read_splits(splits_file, "all", PATIENTS, seed=3)
    assert sorted(split.train_cases + split.tune_cases) == sorted(PATIENTS)
    assert split.val_cases == ()
    assert {PATIENTS[name] for name in split.tune_cases} == set(tune_patients(set(PATIENTS.values()), seed=3))
    assert read_splits(None, "all", PATIENTS, seed=3) == split
    # What a file leaves out on purpose is not trained on.
    more = PATIENTS | {"kept_out": "kept_out"}
    assert read_splits(splits_file, "all", more, seed=3) == split


@pytest.mark.parametrize(
    ("content", "fold", "message"),
    [
        (None, 0, "does not exist: make it with 'teachformer data split'"),
        ("[{", 0, "could not be read as JSON"),
        ({"train": [], "val": []}, 0, "not a splits file"),
        ([], 0, "not a splits file"),
        ([{"train": ["p0_a"]}], 0, "not a splits file"),
        ([{"train": ["p0_a"], "val": "p1_a"}], 0, "not a splits file"),
        ([{"train": ["p0_a", "p2_a"], "val": ["p1_a"]}], 1, "has no fold 1: give a number from 0 to 0, or 'all'"),
        ([{"train": ["p0_a", "p2_a"], "val": ["p1_a"]}], -1, "has no fold -1"),
        ([{"train": ["p0_a", "p2_a"], "val": ["p1_a"]}], "first", "has no fold first"),
        ([{"train": ["p0_a", "p2_a"], "val": ["p9_a"]}], 0, "names 'p9_a' in val"),
        ([{"train": ["p0_a", "p2_a"], "val": ["p0_b"]}], 0, "patient 'p0' is in train and in val of fold 0"),
        ([{"train": ["p2_a"], "val": ["p0_b"]}] * 2, 1, r"'p0' is in val of fold 0 and of fold 1"),
        ([{"train": ["p2_a", "p2_b"], "val": ["p0_b"]}], 0, r"1 training patient\(s\) cannot keep any for tuning"),
    ],
)
def test_bad_splits_files(tmp_path, content, fold, message):
    file = tmp_path / "splits.json"
    if content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_splits(file, fold, PATIENTS, seed=0)


def test_a_fold_without_a_file():
    with pytest.raises(InputError, match="Fold 0 needs a splits file"):
        read_splits(None, 0, PATIENTS, seed=0)


def test_the_committed_folds():
    splits = load_splits(COMMITTED)
    assert "STS_014" in splits[0]["val"]
    names = sorted(name for fold in splits for name in fold["val"])
    assert len(splits) == 5
    assert len(names) == 39
    assert split_faults(splits, {name: name for name in names}) == []


def test_the_committed_folds_are_what_the_command_makes(cli, sts, tmp_path):
    result = cli("data", "split", str(sts), "--seed", "7", "--output", str(tmp_path / "splits.json"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "splits.json").read_bytes() == COMMITTED.read_bytes()
    assert result.stdout.splitlines()[0] == "fold 0: train 31 cases of 31 patients, val 8 cases of 8 patients"
    assert os.listdir(tmp_path) == ["splits.json"]


def test_command_groups_by_patient(cli, make_dataset, tmp_path):
    folder = make_dataset({f"p{number}_{visit}": number for number in range(4) for visit in "ab"})
    output = tmp_path / "splits.json"
    arguments = ["data", "split", str(folder), "--folds", "2", "--output", str(output)]
    result = cli(*arguments, "--patient-pattern", "(p.)_")
    assert result.returncode == 0, result.stderr
    for fold in load_splits(output):
        assert len({name[:2] for name in fold["val"]}) == 2
        assert len(fold["val"]) == 4
    result = cli(*arguments, "--centre-pattern", "p[0-9]_(.)")
    assert result.returncode == 0, result.stderr
    assert sorted({name[-1] for name in fold["val"]} for fold in load_splits(output)) == [{"a"}, {"b"}]
    result = cli(*arguments, "--centre-pattern", "(p)")
    assert "1 centres are fewer than 2 folds: centres were not kept together." in result.stdout


def test_command_never_writes_into_the_data(cli, make_dataset, tmp_path):
    folder = make_dataset({"a": 1, "b": 2})
    (tmp_path / "link").symlink_to(folder / "labelsTr")
    before = sorted(folder.rglob("*"))
    for output in (folder / "splits.json", tmp_path / "link" / "splits.json"):
        result = cli("data", "split", str(folder), "--folds", "2", "--output", str(output))
        assert result.returncode == 2
        assert "lies in the data folder" in result.stderr
    result = cli("data", "split", str(folder), "--folds", "2", "--output", str(tmp_path / "no" / "splits.json"))
    assert result.returncode == 2
    assert "does not exist: create it first" in result.stderr
    assert sorted(folder.rglob("*")) == before
