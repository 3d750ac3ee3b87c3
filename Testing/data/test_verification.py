"""Every fault of a dataset, made by hand in a small one, is found and named; nothing else is."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.case_check import Finding
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.data.fingerprint import obliqueness, orientation
from TeachFormerCore.data.grid import Grid
from TeachFormerCore.data.verification import Examination, check_dataset, examine_dataset
from TeachFormerCore.errors import InputError

CT, PET, LABEL = "imagesTr/b_0000.nii.gz", "imagesTr/b_0001.nii.gz", "labelsTr/b.nii.gz"


def change(file: Path, edit: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Edits the voxels of a file, in place or by a returned array."""
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    edited = edit(array)
    changed = sitk.GetImageFromArray(array if edited is None else edited)
    if changed.GetSize() == image.GetSize():
        changed.CopyInformation(image)
    changed.SetSpacing(image.GetSpacing())
    sitk.WriteImage(changed, str(file))


def move(file: Path, *, origin=None, spacing=None, degrees=0.0) -> None:
    image = sitk.ReadImage(str(file))
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetOrigin(origin or image.GetOrigin())
    image.SetSpacing(spacing or image.GetSpacing())
    sitk.WriteImage(image, str(file))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])


def set_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[1, 2, 3] = value
        return array

    return edit


FAULTS = [
    (CT, Path.unlink, "is missing"),
    (LABEL, Path.unlink, "is missing"),
    (PET, lambda file: file.write_bytes(b""), "is empty"),
    (PET, cut, "cut off"),
    (LABEL, lambda file: file.write_text("not an image, but long enough to be one" * 20), "could not be read"),
    (PET, lambda file: change(file, lambda a: np.concatenate([a, a[:1]])), "size 4 x 5 x 7 against 4 x 5 x 6"),
    (PET, lambda file: move(file, origin=(0, 0, 3)), r"origin 3\.00 mm apart, voxels up to 3 mm apart"),
    (PET, lambda file: move(file, spacing=(2, 3, 4.5)), r"spacing 2 x 3 x 4\.5 against 2 x 3 x 4 mm"),
    (PET, lambda file: move(file, degrees=10), r"axes turned by 10\.0 degrees"),
    (LABEL, lambda file: move(file, origin=(1, 0, 0)), r"not that of b_0000.nii.gz: origin 1\.00 mm apart"),
    # Where the others agree, the file that does not is at fault, though it is the first.
    (CT, lambda file: move(file, origin=(0, 0, 3)), r"not that of b_0001\.nii\.gz"),
    (PET, lambda file: change(file, set_voxel(math.nan)), "1 of 120 voxels are NaN or infinite"),
    (CT, lambda file: change(file, set_voxel(-math.inf)), "1 of 120 voxels are NaN or infinite"),
    (LABEL, lambda file: change(file, set_voxel(math.nan)), "1 of 120 voxels are NaN or infinite"),
    (LABEL, lambda file: change(file, set_voxel(7)), r"does not name \(0 background, 1 GTV\): 7$"),
    (LABEL, lambda file: change(file, set_voxel(-1)), ": -1$"),
    (LABEL, lambda file: change(file, set_voxel(0.5)), r"not whole numbers: 0\.5$"),
    (CT, lambda file: change(file, lambda a: np.full_like(a, -1000)), "every voxel has the value -1000"),
    (PET, lambda file: change(file, lambda a: np.stack([a, a], axis=-1)), "2 values per voxel"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), FAULTS)
def test_a_fault_is_found_and_named(make_dataset, name, spoil, message):
    folder = make_dataset({"a": 3, "b": 5, "c": 1})
    spoil(folder / name)
    (finding,) = check_dataset(open_dataset(folder))
    assert (finding.severity, finding.case, finding.file) == ("fault", "b", str(folder / name))
    assert re.search(message, finding.message), finding.message


def test_a_sound_dataset_has_no_finding(make_dataset):
    folder = make_dataset({"a": 3, "b": 5})
    move(folder / PET, origin=(0.001, 0, 0))  # rounding of another program, far below a voxel
    assert check_dataset(open_dataset(folder)) == []


def test_a_copy_is_found_by_its_voxels(make_dataset):
    folder = make_dataset({"a": 3, "b": 5, "c": 2})
    image = sitk.ReadImage(str(folder / CT))
    copy = folder / "imagesTr" / "c_0000.nii.gz"
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat64), str(copy))  # other bytes, other type, same image
    assert copy.read_bytes() != (folder / CT).read_bytes()
    (finding,) = check_dataset(open_dataset(folder))
    assert (finding.severity, finding.case, finding.file) == ("fault", "c", str(copy))
    assert "b_0000.nii.gz of the case 'b'" in finding.message


def test_what_is_not_a_copy(make_dataset):
    """Equal but for one voxel, or equal voxels at another place."""
    folder = make_dataset({"a": 3, "b": 5, "c": 2})
    copy = folder / "imagesTr" / "c_0000.nii.gz"
    copy.write_bytes((folder / CT).read_bytes())
    assert len(check_dataset(open_dataset(folder))) == 1
    change(copy, set_voxel(5000))
    assert check_dataset(open_dataset(folder)) == []
    copy.write_bytes((folder / CT).read_bytes())
    for file in (copy, folder / "imagesTr" / "c_0001.nii.gz", folder / "labelsTr" / "c.nii.gz"):
        move(file, origin=(0, 0, 50))
    assert check_dataset(open_dataset(folder)) == []


def test_one_image_as_two_channels_is_a_warning(make_dataset):
    folder = make_dataset({"a": 3, "b": 5})
    (folder / PET).write_bytes((folder / CT).read_bytes())
    (finding,) = check_dataset(open_dataset(folder))
    assert finding.severity == "warning"
    assert finding.message == "1 cases hold one image as two channels: b"


def test_empty_labels_are_one_counted_warning(make_dataset):
    folder = make_dataset({f"case_{number:02d}": number % 2 for number in range(20)})
    expected = "10 of 20 labels are empty: " + ", ".join(f"case_{n:02d}" for n in range(0, 16, 2)) + " and 2 more"
    assert check_dataset(open_dataset(folder)) == [
        Finding(severity="warning", case=None, file=str(folder / "labelsTr"), message=expected)
    ]


def test_faults_come_first(make_dataset):
    folder = make_dataset({"a": 0, "b": 5})
    (folder / CT).unlink()
    assert [finding.severity for finding in check_dataset(open_dataset(folder))] == ["fault", "warning"]


def test_without_any_labels(make_dataset):
    folder = make_dataset({"a": 1, "b": 5})
    for file in (folder / "labelsTr").iterdir():
        file.unlink()
    (folder / "labelsTr").rmdir()
    (finding,) = check_dataset(open_dataset(folder))
    assert finding.severity == "fault"
    assert finding.message == "2 of 2 cases have no label: a, b"


def test_single_slices_are_legal(make_dataset):
    assert check_dataset(open_dataset(make_dataset({"a": 3, "b": 5}, shape=(1, 5, 4)))) == []


SPLIT_FAULTS = [
    ([{"train": ["p2_x"], "val": ["p1_x", "p1_y", "p3_x"]}, {"train": ["p1_y"], "val": ["p2_x", "p1_x"]}], "p1"),
    ([{"train": ["p2_x", "p3_x", "p1_y"], "val": ["p1_x"]}], "'p1' is in train and in val of fold 0"),
    (
        [{"train": [], "val": ["p1_x", "p1_y"]}, {"train": [], "val": ["p1_y"]}],
        "'p1' is in val of fold 0 and of fold 1",
    ),
    ([{"train": ["p9_z"], "val": ["p1_x"]}], "fold 0 names 'p9_z' in train: the dataset has no such case"),
    ([{"train": ["p2_x", "p2_x"], "val": ["p1_x"]}], "fold 0 names 'p2_x' 2 times in train"),
]


@pytest.mark.parametrize(("splits", "message"), SPLIT_FAULTS)
def test_faults_of_a_splits_file(make_dataset, tmp_path, splits, message):
    folder = make_dataset({"p1_x": 3, "p1_y": 5, "p2_x": 2, "p3_x": 2}, patient_pattern="(p.)_")
    file = tmp_path / "splits.json"
    file.write_text(json.dumps(splits))
    faults = [finding for finding in check_dataset(open_dataset(folder), file) if finding.severity == "fault"]
    assert any(message in fault.message for fault in faults)
    assert {fault.file for fault in faults} == {str(file)}


def test_sound_splits_and_cases_in_no_fold(make_dataset, tmp_path):
    dataset = open_dataset(make_dataset({"a": 3, "b": 5, "c": 2}))
    file = tmp_path / "splits.json"
    file.write_text(json.dumps([{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}]))
    (finding,) = check_dataset(dataset, file)
    assert (finding.severity, finding.message) == ("warning", "1 of 3 cases are in val of no fold: c")
    file.write_text(json.dumps([{"train": ["b", "c"], "val": ["a"]}, {"train": ["a"], "val": ["b", "c"]}]))
    assert check_dataset(dataset, file) == []
    with pytest.raises(InputError, match="does not exist"):
        check_dataset(dataset, tmp_path / "none.json")


def listing(folder: Path) -> list[tuple[str, int, float]]:
    return sorted((str(file), file.stat().st_size, file.stat().st_mtime) for file in folder.rglob("*"))


def test_command_on_a_sound_dataset(cli, make_dataset):
    folder = make_dataset({"a": 0, "b": 5})
    before = listing(folder)
    result = cli("data", "check", str(folder))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "warning: labelsTr: 1 of 2 labels are empty: a",
        "data set: 2 cases of 2 patients, channels CT, PET: 0 fault(s), 1 warning(s)",
    ]
    assert listing(folder) == before


def test_command_on_a_faulty_dataset(cli, make_dataset):
    folder = make_dataset({"a": 1, "b": 5})
    (folder / CT).unlink()
    result = cli("data", "check", str(folder))
    assert result.returncode == 1
    assert result.stdout.splitlines()[0] == f"fault: {CT}: is missing"
    result = cli("data", "check", str(folder), "--json", "--patient-pattern", "(.)")
    assert result.returncode == 1
    content = json.loads(result.stdout)
    assert {key: content[key] for key in ("cases", "patients", "faults", "warnings")} == {
        "cases": 2,
        "patients": 2,
        "faults": 1,
        "warnings": 0,
    }
    assert content["findings"] == [
        {"severity": "fault", "case": "b", "file": str(folder / CT), "message": "is missing"}
    ]


def test_command_on_what_is_not_a_dataset(cli, make_dataset, tmp_path):
    folder = make_dataset({"a": 1, "b": 5})
    for arguments in (
        [str(tmp_path)],
        [str(tmp_path / "nowhere")],
        [str(folder), "--patient-pattern", "x(y"],
        [str(folder), "--splits", str(tmp_path / "none.json")],
    ):
        result = cli("data", "check", *arguments)
        assert result.returncode == 2
        assert "error" in result.stderr
        assert "Traceback" not in result.stderr


def test_the_sarcoma_dataset_is_sound(sts):
    splits = Path(__file__).parents[2] / "Training" / "splits" / "STS_PETCT_MR.json"
    dataset = open_dataset(sts)
    assert len(dataset.cases) == 39
    assert check_dataset(dataset, splits) == []


def add_test_cases(folder: Path, **copies: str) -> None:
    """Kept-out cases: ``x="a"`` is a copy of the training case a, ``x=""`` one of its own."""
    for part in ("imagesTs", "labelsTs"):
        (folder / part).mkdir()
    for name, source in copies.items():
        for channel in ("_0000", "_0001"):
            file = folder / "imagesTs" / f"{name}{channel}.nii.gz"
            file.write_bytes((folder / "imagesTr" / f"{source or 'a'}{channel}.nii.gz").read_bytes())
            if not source:
                change(file, set_voxel(-77.0))
        label = (folder / "labelsTr" / f"{source or 'a'}.nii.gz").read_bytes()
        (folder / "labelsTs" / f"{name}.nii.gz").write_bytes(label)


def examine(folder: Path) -> Examination:
    return examine_dataset(open_dataset(folder), test=open_dataset(folder, split="Ts"))


def test_kept_out_cases_are_checked_against_the_training_cases(make_dataset):
    folder = make_dataset({"p1_a": 3, "p2_a": 5}, patient_pattern="(p[0-9]+)_")
    add_test_cases(folder, p3_a="p1_a", p2_b="p2_a")
    messages = {(finding.case, finding.message) for finding in examine(folder).findings}
    assert ("p3_a", "the same image as p1_a_0000.nii.gz of the case 'p1_a'") in messages
    assert ("p2_b", "the patient 'p2' is among the training cases too") in messages
    assert not any(message.startswith("the patient 'p3'") for _, message in messages)


def test_sound_kept_out_cases(cli, make_dataset):
    folder = make_dataset({"a": 3, "b": 5}, numTraining=2)
    add_test_cases(folder, c="")
    assert examine(folder).findings == []
    report = json.loads(cli("data", "check", folder, "--json").stdout)
    assert (report["cases"], report["test_cases"], report["faults"]) == (2, 1, 0)
    (folder / "labelsTs" / "c.nii.gz").unlink()
    assert [finding.message for finding in examine(folder).findings] == ["is missing"]
    (folder / "labelsTs").rmdir()  # no labels at all: cases to predict
    assert examine(folder).findings == []


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"numTraining": 3}, "states 3 training cases, 2 are there"),
        ({"labels": {"background": 0, "GTV": 1, "node": 3}}, r"label values 0, 1, 3 are not 0 \(background\), 1, 2"),
        ({"labels": {"GTV": 1}}, "label values 1 are not 0"),
    ],
)
def test_what_the_description_promises(make_dataset, description, message):
    faults = [f for f in check_dataset(open_dataset(make_dataset({"a": 3, "b": 5}, **description))) if f.case is None]
    assert faults[0].severity == "fault"
    assert re.search(message, faults[0].message), faults[0].message


def test_a_label_that_no_case_holds(make_dataset):
    folder = make_dataset({"a": 3, "b": 5}, labels={"background": 0, "GTV": 1, "node": 2})
    (finding,) = check_dataset(open_dataset(folder))
    assert (finding.severity, finding.message) == ("warning", "names labels that no case holds: node")


def test_another_orientation_and_spacing_are_warnings(make_dataset):
    folder = make_dataset({"a": 3, "b": 5, "c": 1, "d": 2})
    for file in (folder / CT, folder / PET, folder / LABEL):
        image = sitk.ReadImage(str(file))
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        sitk.WriteImage(image, str(file))
    for name in ("imagesTr/c_0000", "imagesTr/c_0001", "labelsTr/c"):
        move(folder / f"{name}.nii.gz", spacing=(2, 3, 12))
    findings = check_dataset(open_dataset(folder))
    assert {finding.severity for finding in findings} == {"warning"}
    assert [(finding.case, finding.message) for finding in findings] == [
        (None, "1 cases are stored RAS, 3 LPS: b"),
        ("c", "its spacing is 2 x 3 x 12 mm, the usual one 2 x 3 x 4 mm"),
    ]


def test_the_fingerprint_against_numbers_counted_here(make_dataset):
    folder = make_dataset({"a": 3, "b": 5, "c": 0})
    found = examine_dataset(open_dataset(folder)).fingerprint
    cts = {name: sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"imagesTr/{name}_0000.nii.gz"))) for name in "abc"}
    every = np.concatenate([array.ravel() for array in cts.values()]).astype(float)
    inside = np.concatenate([cts["a"].flat[:3], cts["b"].flat[:5]]).astype(float)
    for numbers, values in ((found["channels"]["CT"], every), (found["labels"]["GTV"]["channels"]["CT"], inside)):
        expected = {"mean": values.mean(), "sd": values.std(), "min": values.min(), "max": values.max()}
        expected |= {"p0_5": np.percentile(values, 0.5), "p50": np.median(values), "p99_5": np.percentile(values, 99.5)}
        assert numbers == pytest.approx(expected, rel=1e-5)
    label = found["labels"]["GTV"]
    assert (label["value"], label["cases"]) == (1, 2)
    assert label["volume_ml"] == {"median": 0.096, "min": 0.072, "max": 0.12}  # voxels of 24 mm3
    assert label["share"]["max"] == pytest.approx(5 / 120, abs=1e-4)
    assert found["spacing_mm"]["median"] == [2, 3, 4]
    assert found["size"]["max"] == [4, 5, 6]
    assert found["extent_mm"]["min"] == [8, 15, 24]
    assert found["orientations"] == {"LPS": 3}
    assert found["oblique_cases"] == 0


@pytest.mark.parametrize(
    ("direction", "code"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), "LPS"),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), "RAS"),
        ((0, 0, 1, 1, 0, 0, 0, -1, 0), "PIL"),
        ((0.96, -0.28, 0, 0.28, 0.96, 0, 0, 0, -1), "LPI"),
    ],
)
def test_orientation_is_simpleitks(direction, code):
    grid = Grid(size=(2, 2, 2), spacing=(1, 1, 1), origin=(0, 0, 0), direction=direction)
    assert orientation(grid) == code
    assert code == sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines([float(v) for v in direction])
    assert obliqueness(grid) == pytest.approx(16.26 if 0.96 in direction else 0, abs=0.01)


def test_the_fingerprint_for_people(cli, make_dataset):
    lines = cli("data", "check", make_dataset({"a": 3, "b": 5}), "--fingerprint").stdout.splitlines()
    assert lines[0] == "spacing 2 x 3 x 4 mm"
    assert any(line.startswith("label 1 GTV: in 2 of 2 cases, 0.096 mL [0.072 to 0.12]") for line in lines)
