"""What is taken for a dataset, and what is refused in which words."""

import json
from pathlib import Path

import pytest

from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.errors import InputError
from TeachFormerCore.paths import find_dataset


def layout(folder: Path, names: list[str], description: object = None) -> Path:
    """An nnU-Net folder of empty files; ``names`` are relative to it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    if description is None:
        description = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "GTV": 1}}
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


CASES = [f"imagesTr/{case}_{channel}.nii.gz" for case in ("b", "a") for channel in ("0000", "0001")]
LABELS = ["labelsTr/a.nii.gz", "labelsTr/b.nii.gz"]


def test_a_folder_in_nnunet_layout(tmp_path):
    folder = layout(tmp_path / "STS", [*CASES, *LABELS])
    dataset = open_dataset(folder)
    assert dataset.name == "STS"
    assert dataset.channels == ("CT", "PET")
    assert dataset.labels == {"background": 0, "GTV": 1}
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert dataset.patients() == {"a": "a", "b": "b"}
    assert dataset.cases[1].images == {
        name: folder / "imagesTr" / f"b_000{n}.nii.gz" for n, name in enumerate(["CT", "PET"])
    }
    assert dataset.cases[1].label == folder / "labelsTr" / "b.nii.gz"
    assert dataset.centre_pattern is None


def test_what_lies_about_is_no_case(tmp_path):
    """A Mac's companions of each file, an unfinished output, notes; channels beyond those named are ignored."""
    about = ["imagesTr/._a_0000.nii.gz", "imagesTr/.x_0000.nii.gz", "labelsTr/._a.nii.gz", "imagesTr/notes.txt"]
    dataset = open_dataset(layout(tmp_path / "d", [*CASES, *LABELS, *about, "imagesTr/a_0002.nii.gz"]))
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert list(dataset.cases[0].images) == ["CT", "PET"]


def test_cases_with_missing_files_are_still_cases(tmp_path):
    dataset = open_dataset(layout(tmp_path / "d", ["imagesTr/a_0001.nii.gz", "labelsTr/b.nii.gz"]))
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert not dataset.cases[0].images["CT"].exists()


def test_the_test_part(tmp_path):
    folder = layout(tmp_path / "d", [*CASES, *LABELS, "imagesTs/c_0000.nii.gz"])
    (case,) = open_dataset(folder, split="Ts").cases
    assert (case.name, case.label) == ("c", None)


def test_other_file_endings_and_first_generation_descriptions(tmp_path):
    description = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior"}, "file_ending": ".nrrd"}
    dataset = open_dataset(layout(tmp_path / "d", ["imagesTr/a_1_0000.nrrd", "labelsTr/a_1.nrrd"], description))
    assert dataset.channels == ("MRI",)
    assert dataset.labels == {"background": 0, "Anterior": 1}
    assert dataset.cases[0].name == "a_1"


def test_patients(tmp_path):
    names = [f"imagesTr/P{patient}_s{number}_0000.nii.gz" for patient in "12" for number in "12"]
    folder = layout(tmp_path / "d", names, {"channel_names": {"0": "CT"}, "labels": {}, "patient_pattern": "(P.)_"})
    assert open_dataset(folder).patients() == {"P1_s1": "P1", "P1_s2": "P1", "P2_s1": "P2", "P2_s2": "P2"}
    other = open_dataset(folder, patient_pattern=r".*_(s\d)")
    assert other.patients() == {"P1_s1": "s1", "P1_s2": "s2", "P2_s1": "s1", "P2_s2": "s2"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(P", "not a regular expression"),
        ("P", "exactly one group, the patient"),
        ("(P)(.)", "exactly one group"),
        ("s(.)", "does not fit the case 'a'"),  # matched at the start
        ("(x?)", "does not fit the case 'a'"),  # an empty name is no patient
    ],
)
def test_bad_patient_patterns(tmp_path, pattern, message):
    with pytest.raises(InputError, match=message):
        open_dataset(layout(tmp_path / "d", CASES), patient_pattern=pattern)


GOOD = {"0": "CT"}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ([], "must hold a JSON object"),
        ({"channel_names": ["CT"], "labels": {}}, "must be numbered"),
        ({"channel_names": {"1": "CT"}, "labels": {}}, "must be numbered"),
        ({"channel_names": GOOD, "labels": {"GTV": "one"}}, "must map names to whole numbers"),
        ({"channel_names": GOOD, "labels": {"whole": [1, 2]}}, "must map names to whole numbers"),
        ({"channel_names": GOOD, "labels": ["background", "GTV"]}, "must map names to whole numbers"),
        ({"channel_names": {"0": "MR", "1": "mr"}, "labels": {}}, "names two channels alike: MR, mr"),
        ({"labels": {}}, "names no channels"),
        ({"channel_names": GOOD, "labels": {}, "file_ending": ".mha"}, "holds no cases for the split 'Tr'"),
    ],
)
def test_bad_descriptions(tmp_path, description, message):
    folder = layout(tmp_path / "d", ["imagesTr/a_0000.nii.gz"], description)
    with pytest.raises(InputError, match=message) as error:
        open_dataset(folder)
    assert str(folder) in str(error.value)


def test_what_is_no_dataset(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.json does not exist"):
        open_dataset(tmp_path)
    folder = layout(tmp_path / "d", ["labelsTr/a.nii.gz"])
    with pytest.raises(InputError, match="has no folder imagesTr"):
        open_dataset(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(InputError, match="could not be read as JSON"):
        open_dataset(folder)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    folder = layout(tmp_path / "d", CASES)
    text = (folder / "dataset.json").read_text(encoding="utf-8")
    (folder / "dataset.json").write_text(text, encoding="utf-8-sig")
    assert len(open_dataset(folder).cases) == 2


def datalist(folder: Path, content: object) -> Path:
    file = folder / "list.json"
    file.write_text(json.dumps(content))
    return file


def test_a_monai_datalist(tmp_path):
    content = {
        "modality": {"0": "CT", "1": "PET"},
        "labels": {"0": "background", "1": "GTV"},
        "training": [
            {"image": ["i/b_0000.nii.gz", "i/b_0001.nii.gz"], "label": "l/b.nii.gz"},
            {"image": ["i/a_0000.nii.gz", "i/a_0001.nii.gz"]},
        ],
        "test": [["t/c_0000.nii.gz", "t/c_0001.nii.gz"]],
    }
    file = datalist(tmp_path, content)
    dataset = open_dataset(file)
    assert (dataset.name, dataset.folder) == ("list", tmp_path)
    assert [(case.name, case.label) for case in dataset.cases] == [("a", None), ("b", tmp_path / "l/b.nii.gz")]
    assert dataset.cases[1].images == {"CT": tmp_path / "i/b_0000.nii.gz", "PET": tmp_path / "i/b_0001.nii.gz"}
    (case,) = open_dataset(file, split="Ts").cases
    assert case.images["PET"] == tmp_path / "t/c_0001.nii.gz"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"label": "a.nii.gz"}], "not a MONAI datalist"),
        ([{"image": "a.nii.gz"}, {"image": ["b_0000.nii.gz", "b_0001.nii.gz"]}], "not a MONAI datalist"),
        ([{"image": "x/a.nii.gz"}, {"image": "y/a.nii.gz"}], "two cases with the name 'a'"),
        ([], "holds no cases"),
    ],
)
def test_bad_datalists(tmp_path, entries, message):
    with pytest.raises(InputError, match=message):
        open_dataset(datalist(tmp_path, {"training": entries}))


def test_datasets_are_found_by_name(tmp_path, monkeypatch):
    folder = layout(tmp_path / "STS", CASES)
    monkeypatch.setenv("TEACHFORMER_DATA", str(tmp_path))
    assert find_dataset("STS") == find_dataset(folder) == folder.resolve()
    with pytest.raises(InputError, match="No dataset 'ABC': looked for the folders ABC, "):
        find_dataset("ABC")
