"""Converters on miniature archives: contents, oddities, refusals; broken cases, resuming, being killed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import archives
import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.convert import brats19, chaos, csv_table, hecktor21, picai22
from TeachFormerCore.data.convert.archive import Archive, SourceCase, TargetCase
from TeachFormerCore.data.convert.conversion import convert
from TeachFormerCore.data.convert.held_out import draw_test, share
from TeachFormerCore.data.convert.memory import MEMORY_BUDGET, Budget, case_bytes
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.data.dicom import read_dicom_stack
from TeachFormerCore.data.regions import from_organisers, label_of, regions_of, to_organisers
from TeachFormerCore.data.splits import make_splits, patient_centres
from TeachFormerCore.data.verification import check_dataset
from TeachFormerCore.errors import InputError

CASES = ("CHGJ007", "CHGJ008", "CHMR001", "CHUM002", "CHUM003", "CHUP004", "CHUS005", "CHUS006")


def state(folder):
    """Every file with its content and time, to show that nothing was touched."""
    return {
        file.relative_to(folder): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def names(folder, part):
    return sorted(file.name.removesuffix(".nii.gz") for file in (folder / part).glob("*.nii.gz"))


def array(folder, part, name):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / part / f"{name}.nii.gz")))


def test_hecktor_to_check_split_and_prepare(tmp_path, cli):
    """The whole chain by the command line; the source stays as it was."""
    source, dst = tmp_path / "hecktor2021 train", tmp_path / "HECKTOR21"
    archives.hecktor(source, {name: {} for name in CASES}, ending="_ct_gtvt.nii.gz", box_mm=16)
    before = state(source)
    done = cli("data", "convert", "hecktor21", source, dst)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 cases converted" in done.stdout
    assert "6 for training, 2 for testing" in done.stdout
    assert state(source) == before
    assert not list(tmp_path.glob(".*converting"))
    assert array(dst, "imagesTr", "CHUM002_0000").dtype == np.int16
    pet = array(dst, "imagesTr", "CHUM002_0001")
    assert pet.dtype == np.float32
    assert (pet != np.rint(pet)).any()  # SUV is not cut to whole numbers
    assert set(np.unique(array(dst, "labelsTr", "CHUM002"))) == {0, 1}
    assert {name[:4] for name in names(dst, "labelsTr")}.isdisjoint(name[:4] for name in names(dst, "labelsTs"))
    checked = cli("data", "check", dst, "--json")
    assert checked.returncode == 0, checked.stdout
    report = json.loads(checked.stdout)
    assert (report["cases"], report["test_cases"], report["faults"]) == (6, 2, 0)
    split = cli("data", "split", dst, "--output", tmp_path / "splits.json", "--folds", "3")
    assert split.returncode == 0, split.stderr
    for fold in json.loads((tmp_path / "splits.json").read_text(encoding="utf-8")):
        assert {name[:4] for name in fold["train"]}.isdisjoint(name[:4] for name in fold["val"])
    prepared = cli("data", "prepare", dst, "--channels", "CT,PET", "--spacing", "2,2,2")
    assert prepared.returncode == 0, prepared.stderr
    assert "6 cases" in prepared.stdout


def test_a_broken_case_is_named_and_a_second_run_mends_it(tmp_path, cli):
    source, dst = tmp_path / "src", tmp_path / "dst"
    archives.hecktor(source, {"CHUM001": {}, "CHUM002": {"box": False}, "CHUP003": {}, "CHUP004": {}}, box_mm=12)
    broken = source / "hecktor_nii" / "CHUP003_pt.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    first = cli("data", "convert", "hecktor21", source, dst, "--test", "none")
    assert first.returncode == 1
    assert "2 of 4 cases converted" in first.stdout
    assert "failed: CHUM002: " in first.stdout
    assert "no box for CHUM002" in first.stdout
    assert "failed: CHUP003: " in first.stdout
    assert str(broken) in first.stdout
    assert names(dst, "labelsTr") == ["CHUM001", "CHUP004"]
    assert check_dataset(open_dataset(dst)) == []  # numTraining and the files agree
    kept = dst / "labelsTr" / "CHUM001.nii.gz"
    written = kept.stat().st_mtime_ns
    broken.write_bytes(whole)
    second = cli("data", "convert", "hecktor21", source, dst, "--test", "none", "--json")
    report = json.loads(second.stdout)
    assert second.returncode == 1
    assert (report["total"], report["converted"], report["already_there"]) == (4, 3, 2)
    assert list(report["failed"]) == ["CHUM002"]
    assert names(dst, "labelsTr") == ["CHUM001", "CHUP003", "CHUP004"]
    assert kept.stat().st_mtime_ns == written  # not made again


def test_nothing_is_published_while_nothing_can_be_read(tmp_path, cli):
    archives.hecktor(tmp_path / "src", {"CHUM001": {"box": False}})
    done = cli("data", "convert", "hecktor21", tmp_path / "src", tmp_path / "dst", "--test", "none")
    assert done.returncode == 1
    assert "0 of 1 cases converted" in done.stdout
    assert not (tmp_path / "dst").exists()


def test_a_source_that_changed_is_converted_again(tmp_path):
    source, dst = tmp_path / "src", tmp_path / "dst"
    archives.hecktor(source, {"CHUM001": {}, "CHUP002": {}}, box_mm=12)
    convert(hecktor21.archive(source, test="none"), dst)
    assert convert(hecktor21.archive(source, test="none"), dst).already == 2
    before = array(dst, "imagesTr", "CHUM001_0001").max()
    file = source / "hecktor_nii" / "CHUM001_pt.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(file)) * 2, str(file))
    assert convert(hecktor21.archive(source, test="none"), dst).already == 1
    assert array(dst, "imagesTr", "CHUM001_0001").max() == pytest.approx(2 * before)
    (dst / "labelsTr" / "CHUP002.nii.gz").unlink()  # a file that was lost is made again
    assert convert(hecktor21.archive(source, test="none"), dst).already == 1
    assert names(dst, "labelsTr") == ["CHUM001", "CHUP002"]


def test_a_killed_run_resumes(tmp_path):
    """Killed for real in the middle; what was whole is kept, and the result is the same as in one go."""
    source, dst = tmp_path / "src", tmp_path / "dst"
    archives.hecktor(source, {f"CHUM{n:03d}": {} for n in range(6)}, box_mm=50)
    archive = hecktor21.archive(source, test="none")
    convert(archive, tmp_path / "in one go")
    building = tmp_path / ".dst.converting"
    command = [sys.executable, "-m", "TeachFormerCore", "data", "convert", "hecktor21", source, dst, "--test", "none"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [*map(str, command), "--threads", "1"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and len(names(building, "labelsTr")) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    assert process.wait() != 0
    assert not dst.exists()
    with (building / "conversion.jsonl").open("a", encoding="utf-8") as record:
        record.write('{"case": "CHUM005", "sour')  # a line that was being written
    outcome = convert(archive, dst)
    assert 1 <= outcome.already < 6
    assert outcome.done == 6
    assert not building.exists()
    images = {file: content for file, (content, _) in state(tmp_path / "in one go").items() if file.suffix == ".gz"}
    again = {file: content for file, (content, _) in state(dst).items() if file.suffix == ".gz"}
    assert {f: array(dst, f.parent, f.name[:-7]).tobytes() for f in again} == {
        f: array(tmp_path / "in one go", f.parent, f.name[:-7]).tobytes() for f in images
    }
    assert convert(archive, dst).already == 6  # and the broken line did not spoil the record


def test_places_that_are_refused(tmp_path):
    source = tmp_path / "src"
    archives.hecktor(source, {"CHUM001": {}, "CHUM002": {}}, box_mm=12)
    archive = hecktor21.archive(source, test="none")
    for inside in (source / "out", source, tmp_path):
        with pytest.raises(InputError, match="lie in each other"):
            convert(archive, inside)
    (tmp_path / "full").mkdir()
    with pytest.raises(InputError, match="is no conversion"):
        convert(archive, tmp_path / "full")
    convert(archive, tmp_path / "dst")
    with pytest.raises(InputError, match="test none; now hecktor21 version 1, test paper"):
        convert(hecktor21.archive(source), tmp_path / "dst")
    assert names(tmp_path / "dst", "labelsTr") == ["CHUM001", "CHUM002"]


def test_what_hecktor_refuses_and_tells(tmp_path):
    source = tmp_path / "src"
    archives.hecktor(source, {"CHUM001": {}, "CHUM002": {}, "CHUM003": {"label": False}}, box_mm=12)
    table = source / "hecktor2021_bbox_training.csv"
    rows = table.read_text(encoding="utf-8").splitlines()
    rows[1] = "CHUM001,500,512,500,512,500,512"  # far away
    table.write_text("\n".join(rows), encoding="utf-8-sig")
    outcome = convert(hecktor21.archive(source, test="none"), tmp_path / "dst")
    assert "lies outside of" in outcome.failed["CHUM001"]
    assert names(tmp_path / "dst", "imagesTs") == ["CHUM003_0000", "CHUM003_0001"]  # no label: a test case
    assert ("CHUM002", "its box is not 144 mm long: 12 x 12 x 12 voxels") in outcome.notes
    assert hecktor21.archive(source).left_out == ["1 cases without a label (with --test none they become imagesTs)"]
    table.write_text("PatientID,a\nCHUM001,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="needs PatientID, x1, x2"):
        hecktor21.archive(source)
    table.unlink()
    (source / "resampled").mkdir()
    copy = source / "resampled" / "CHUM002_ct.nii.gz"
    copy.write_bytes((source / "hecktor_nii" / copy.name).read_bytes())
    with pytest.raises(InputError, match="two cases with one name"):
        hecktor21.archive(source)
    copy.unlink()
    with pytest.raises(InputError, match="--boxes"):
        hecktor21.archive(source)
    with pytest.raises(InputError, match="expected hecktor_nii"):
        hecktor21.archive(tmp_path / "dst" / "labelsTr")


def test_the_papers_numbers():
    """180 + 44 of HECKTOR 2021 with its real centres, 180 + 40 of PI-CAI with patients of several studies."""
    sizes = {"CHGJ": 55, "CHMR": 18, "CHUM": 56, "CHUP": 23, "CHUS": 72}
    cases = [f"{centre}{n:03d}" for centre, count in sizes.items() for n in range(count)]
    centres = {case: case[:4] for case in cases}
    test = draw_test({case: case for case in cases}, share(224, part=44, whole=224), centres=centres)
    by_centre = Counter(centres[case] for case in test)
    assert len(test) == 44
    assert (by_centre["CHMR"], by_centre["CHUP"]) == (18, 23)  # whole centres
    assert len(by_centre) == 3  # and one that lends the three that are missing
    patients = {f"{10000 + n // 3 * 2 + (n % 3 == 2)}_{n}": str(10000 + n // 3 * 2 + (n % 3 == 2)) for n in range(220)}
    test = draw_test(patients, share(220, part=40, whole=220))
    assert len(test) == 40
    assert {patients[case] for case in test}.isdisjoint(patients[case] for case in set(patients) - test)
    assert draw_test(dict(reversed(patients.items())), 40) == test  # whatever the order of the files


def test_the_share_of_other_archives():
    assert [share(n, part=44, whole=224) for n in (0, 1, 2, 5, 50, 224)] == [0, 0, 1, 1, 10, 44]


STUDIES = {"10001_1000001": 2, "10001_1000002": 3, "10002_1000003": 1, "10003_1000004": 0, "10004_1000005": 5}


def test_picai(tmp_path):
    source = tmp_path / "src"
    archives.picai(source, STUDIES)
    extra = source / "picai_labels" / "csPCa_lesion_delineations" / "human_expert" / "Later25"
    extra.mkdir()
    expert = extra.parent / "resampled" / "10004_1000005.nii.gz"
    shutil.move(expert, extra / expert.name)  # later releases hold further folders of experts
    archive = picai22.archive(source)
    assert [case.name for case in archive.cases] == ["10001_1000001", "10001_1000002"]  # grade 2 and above
    assert archive.left_out == [
        "2 studies without significant cancer (taken with --negatives)",
        "1 studies without a label in the folders used",
    ]
    archive = picai22.archive(source, folders=(picai22.EXPERT, "human_expert/Later25"))
    outcome = convert(archive, tmp_path / "dst")
    assert (outcome.done, outcome.training + outcome.test) == (3, 3)
    dataset = open_dataset(tmp_path / "dst")
    kept_out = open_dataset(tmp_path / "dst", split="Ts")
    assert set(dataset.patients().values()).isdisjoint(kept_out.patients().values())
    assert dataset.patients()[dataset.cases[0].name] == dataset.cases[0].name.split("_")[0]
    assert dataset.centres == {"10001": "PCNN", "10004": "PCNN"}
    assert set(patient_centres(dataset).values()) == {"PCNN"}
    assert dataset.channels == ("T2W", "ADC", "HBV")
    label = array(tmp_path / "dst", f"labels{archive.cases[0].split}", "10001_1000001")
    assert label.shape == (24, 384, 384)
    assert set(np.unique(label)) == {0, 1}
    drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(extra.parent / "resampled" / "10001_1000001.nii.gz"))) >= 2
    # Five slices of 3.3 mm become six of 3 mm.
    assert label.sum() * 0.5 * 0.5 * 3 == pytest.approx(drawn.sum() * 0.6 * 0.6 * 3.3, rel=0.15)
    assert [case.name for case in picai22.archive(source, folders=(picai22.AI,)).cases] == sorted(STUDIES)
    with pytest.raises(InputError, match="no folder nobody"):
        picai22.archive(source, folders=("nobody",))
    with pytest.raises(InputError, match="picai_labels and give --labels"):
        picai22.archive(source / "images")


def test_picai_in_slices_to_folds(tmp_path):
    source = tmp_path / "src"
    archives.picai(source, {"10001_1000001": 2, "10002_1000003": 0})
    outcome = convert(picai22.archive(source, form="2d", test="none", negatives=True), tmp_path / "dst")
    assert (outcome.done, outcome.training) == (2, 48)
    dataset = open_dataset(tmp_path / "dst")
    assert Counter(dataset.patients().values()) == {"10001": 24, "10002": 24}
    slices = [sitk.ReadImage(str(case.label)) for case in dataset.cases if case.patient == "10001"]
    assert slices[0].GetSize() == (384, 384, 1)
    places = [np.array(image.GetOrigin()) for image in slices]
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    np.testing.assert_allclose(steps, 3.0, atol=1e-4)  # each slice lies where it was
    assert 0 < sum(sitk.GetArrayFromImage(image).any() for image in slices) < 12
    for fold in make_splits(dataset, folds=2):
        assert {name.split("_")[0] for name in fold["train"]}.isdisjoint(name.split("_")[0] for name in fold["val"])


def test_brats(tmp_path):
    source = tmp_path / "src"
    cases = {"BraTS19_CBICA_AAB_1": "HGG", "BraTS19_TCIA10_202_1": "LGG", "BraTS19_UAB_3498_1": "validation"}
    archives.brats(source, cases)
    packed = source / "LGG/BraTS19_TCIA10_202_1/BraTS19_TCIA10_202_1_t1ce.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(packed)), str(packed.with_suffix("")))  # some copies are not packed
    packed.unlink()
    (source / "HGG" / "._BraTS19_CBICA_AAB_1_flair.nii.gz").write_bytes(b"Mac")
    outcome = convert(brats19.archive(source), tmp_path / "dst")
    assert (outcome.training, outcome.test, outcome.failed) == (2, 1, {})
    dataset = open_dataset(tmp_path / "dst")
    assert dataset.patients()["BraTS19_CBICA_AAB_1"] == "BraTS19_CBICA_AAB"
    assert patient_centres(dataset) == {"BraTS19_CBICA_AAB": "CBICA", "BraTS19_TCIA10_202": "TCIA10"}
    assert check_dataset(dataset) == []
    label = array(tmp_path / "dst", "labelsTr", "BraTS19_CBICA_AAB_1")
    original = array(source / "HGG" / "BraTS19_CBICA_AAB_1", ".", "BraTS19_CBICA_AAB_1_seg")
    np.testing.assert_array_equal(to_organisers(label), original)
    flair = array(tmp_path / "dst", "imagesTr", "BraTS19_CBICA_AAB_1_0000")
    source_flair = array(source / "HGG" / "BraTS19_CBICA_AAB_1", ".", "BraTS19_CBICA_AAB_1_flair")
    assert flair.dtype == source_flair.dtype
    np.testing.assert_array_equal(flair, source_flair)


def test_brats_refusals(tmp_path):
    source = tmp_path / "src"
    archives.brats(source, {"BraTS19_A_1_1": "HGG", "BraTS19_A_2_1": "HGG", "BraTS19_A_3_1": "HGG"})
    (source / "HGG/BraTS19_A_1_1/BraTS19_A_1_1_t2.nii.gz").unlink()
    for name, edit in (
        ("BraTS19_A_2_1", lambda image: image + 3),
        ("BraTS19_A_3_1", lambda image: sitk.Flip(image, (True, False, False))),
    ):
        file = source / "HGG" / name / f"{name}_seg.nii.gz"
        sitk.WriteImage(edit(sitk.ReadImage(str(file))), str(file))
    failed = convert(brats19.archive(source), tmp_path / "dst").failed
    assert "has no BraTS19_A_1_1_t2" in failed["BraTS19_A_1_1"]
    assert "[3, 5, 7] are none of [0, 1, 2, 4]" in failed["BraTS19_A_2_1"]
    assert "does not lie on the grid" in failed["BraTS19_A_3_1"]


def test_regions_both_ways():
    theirs = np.array([[0, 1, 2], [4, 4, 0]])
    ours = from_organisers(theirs)
    np.testing.assert_array_equal(ours, [[0, 1, 2], [3, 3, 0]])
    np.testing.assert_array_equal(to_organisers(ours), theirs)
    regions = regions_of(ours)
    np.testing.assert_array_equal(regions["WT"], [[0, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(regions["TC"], [[0, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(regions["ET"], [[0, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(label_of(regions), ours)
    with pytest.raises(ValueError, match="3"):
        from_organisers(ours)


def test_chaos(tmp_path):
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    source = tmp_path / "src"
    archives.chaos(
        source,
        {
            "1": {"reverse": True},
            "2": {"one_series": True},
            "5": {"ground": False},
            "8": {"renamed": True, "reverse": True},
            "9": {},
            "10": {},
        },
    )
    png = sorted((source / "Train_Sets/MR/9/T1DUAL/Ground").iterdir())[4]
    sitk.WriteImage(sitk.ReadImage(str(png)) + 30, str(png))
    sorted((source / "Train_Sets/MR/10/T1DUAL/DICOM_anon/InPhase").iterdir())[4].unlink()
    outcome = convert(chaos.archive(source), tmp_path / "dst")
    assert (outcome.training, outcome.test) == (3, 1)
    assert str(png) in outcome.failed["MR_9"]
    assert "stands for no organ" in outcome.failed["MR_9"]
    assert "misses slices" in outcome.failed["MR_10"]
    assert outcome.notes == [
        ("MR_8", "its masks do not bear the names of its slices: paired in the order of the numbers")
    ]
    labels = [array(tmp_path / "dst", "labelsTr", name) for name in ("MR_1", "MR_2", "MR_8")]
    for label in labels[1:]:
        np.testing.assert_array_equal(label, labels[0])  # the same anatomy, however the files are called
    assert set(np.unique(labels[0])) == {0, 1, 2, 3, 4}
    dataset = open_dataset(tmp_path / "dst")
    assert [finding.message for finding in check_dataset(dataset) if finding.severity == "fault"] == []
    images = [array(tmp_path / "dst", "imagesTr", f"MR_2_000{channel}") for channel in (0, 1)]
    assert images[1].max() - images[0].max() == pytest.approx(10, abs=1)  # in phase first
    convert(chaos.archive(source, sequence="t2spir", organs="liver"), tmp_path / "liver")
    assert open_dataset(tmp_path / "liver").labels == {"background": 0, "liver": 1}
    np.testing.assert_array_equal(array(tmp_path / "liver", "labelsTr", "MR_2") == 1, labels[1] == 1)


def test_a_stack_with_a_slice_that_is_turned(tmp_path):
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    archives.chaos(tmp_path, {"1": {}})
    folder = tmp_path / "Train_Sets/MR/1/T2SPIR/DICOM_anon"
    files = sorted(folder.iterdir())
    turned = pydicom.dcmread(files[3])
    turned.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    turned.save_as(files[3])
    with pytest.raises(InputError, match=f"{files[3].name} is turned"):
        read_dicom_stack(files, folder)
    files[3].write_bytes(b"no DICOM")
    with pytest.raises(InputError, match=f"{files[3].name} could not be read"):
        read_dicom_stack(files, folder)


def test_an_interrupted_second_run_leaves_the_dataset_where_it_was(tmp_path):
    """Ctrl+C while a case is added: what was there before is there after it."""
    (tmp_path / "src").mkdir()
    image = sitk.Image((4, 4, 4), sitk.sitkFloat32)

    def archive(read):
        cases = [
            SourceCase(name="a", files=[], read=lambda: [TargetCase(name="a", images=[image], label=None)]),
            SourceCase(name="b", files=[], read=read),
        ]
        return Archive(
            challenge="t", source=tmp_path / "src", channels=["T1"], labels=None, licence="", reference="", cases=cases
        )

    def broken():
        raise InputError("broken")

    def interrupted():
        raise KeyboardInterrupt

    assert convert(archive(broken), tmp_path / "dst").failed == {"b": "broken"}
    with pytest.raises(KeyboardInterrupt):
        convert(archive(interrupted), tmp_path / "dst")
    assert names(tmp_path / "dst", "imagesTr") == ["a_0000"]
    assert not list(tmp_path.glob(".*"))


def write_table(folder, text, images):
    folder.mkdir(exist_ok=True)
    grid = archives.empty((12, 11, 10), (2, 2, 2), (0, 0, 0), archives.rotation())
    for number, name in enumerate(images):
        image = (
            archives.ball(grid, (0, 0, 0), radius=5, value=number + 1)
            if "seg" in name
            else archives.blob(grid, (number, 0, 0), high=100 + number)
        )
        sitk.WriteImage(image, str(folder / name))
    (folder / "cases.csv").write_text(text, encoding="utf-8-sig")
    return folder / "cases.csv"


def test_csv(tmp_path):
    table = write_table(
        tmp_path / "src",
        "case;patient;centre;split;T1;FLAIR;label\n"
        "b;p1;Bonn;train;1.nrrd;2.nrrd;0seg.nrrd\na;p1;Bonn;;2.nrrd;3.nrrd;1seg.nii.gz\nc;p2;Ulm;test;3.nrrd;4.nrrd;\n"
        "d;p3;Ulm;train;missing.nrrd;4.nrrd;0seg.nrrd\n",
        ["0seg.nrrd", "1seg.nii.gz", "1.nrrd", "2.nrrd", "3.nrrd", "4.nrrd"],
    )
    outcome = convert(csv_table.archive(table), tmp_path / "src" / "dst")  # beside its table, not in its images
    assert (outcome.training, outcome.test) == (2, 1)
    assert "missing.nrrd does not exist" in outcome.failed["d"]
    dataset = open_dataset(tmp_path / "src" / "dst")
    assert dataset.channels == ("T1", "FLAIR")
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2}
    assert dataset.patients() == {"a": "p1", "b": "p1"}
    assert patient_centres(dataset) == {"p1": "Bonn"}
    outcome = convert(csv_table.archive(table, labels={"rim": 2}), tmp_path / "named")
    assert "holds the values [1], which --labels does not name" in outcome.failed["b"]
    assert open_dataset(tmp_path / "named").labels == {"background": 0, "rim": 1}  # no gaps
    assert set(np.unique(array(tmp_path / "named", "labelsTr", "a"))) == {0, 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,T1\nx,1.nrrd\n", "needs the column 'case'"),
        ("case,label\nx,1.nrrd\n", "one column a channel"),
        ("case,T1,t1\nx,1.nrrd,1.nrrd\n", "two columns"),
        ("case,T1\n../x,1.nrrd\n", "no case name"),
        ("case,T1\nx,1.nrrd\nx,1.nrrd\n", "line 3: the case 'x' is there twice"),
        ("case,split,T1\nx,val,1.nrrd\n", "neither train nor test"),
        ("case,T1\n", "no cases"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        csv_table.archive(write_table(tmp_path / "src", text, ["1.nrrd"]))


def test_csv_takes_dicom_and_pet_as_suv(tmp_path):
    """The series of the SUV tests, beside a NIfTI file on another grid."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    from test_suv import write_series

    write_series(tmp_path / "src" / "pet", slopes=("1",) * 4)
    grid = archives.empty((10, 8, 8), (1.5, 1.5, 1.5), (14, 23, 4.5), archives.rotation())
    sitk.WriteImage(archives.blob(grid, (14, 23, 4.5), low=-1000), str(tmp_path / "src" / "ct.nii.gz"))
    (tmp_path / "src" / "t.csv").write_text("case,CT,PET\nx,ct.nii.gz,pet\n", encoding="utf-8")
    outcome = convert(csv_table.archive(tmp_path / "src"), tmp_path / "dst")
    assert outcome.failed == {}
    assert any("PET was resampled" in note for _, note in outcome.notes)
    assert array(tmp_path / "dst", "imagesTr", "x_0001").max() < 1  # Bq/mL would be 1950


def test_memory_is_shared_out():
    """Cases wait for each other where together they would hold too much, and the largest runs alone."""
    budget, held, most = Budget(10), 0, 0
    lock = threading.Lock()

    def work(size):
        nonlocal held, most
        with budget.hold(size):
            with lock:
                held += size
                most = max(most, held)
            time.sleep(0.01)
            with lock:
                held -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in (4, 4, 4, 3, 9, 2, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert held == 0
    assert most == 25  # the one that is too large for the budget, and nothing beside it
    case = SourceCase(name="x", files=[], read=list)
    assert case_bytes(case) == 0 < MEMORY_BUDGET


def test_an_internal_error_in_a_case_does_not_stop_the_others(tmp_path):
    (tmp_path / "src").mkdir()
    image = sitk.Image((4, 4, 4), sitk.sitkFloat32)

    def fails():
        raise RuntimeError("ITK ERROR: something broke")

    cases = [
        SourceCase(name="a", files=[], read=fails),
        SourceCase(name="b", files=[], read=lambda: [TargetCase(name="b", images=[image], label=None)]),
        SourceCase(name="c", files=[], read=lambda: [TargetCase(name="c", images=[], label=None)]),
    ]
    archive = Archive(
        challenge="test", source=tmp_path / "src", channels=["T1"], labels=None, licence="", reference="", cases=cases
    )
    outcome = convert(archive, tmp_path / "dst")
    assert outcome.failed == {"a": "RuntimeError: something broke", "c": "The case c has 0 of 1 channels."}
    assert names(tmp_path / "dst", "imagesTr") == ["b_0000"]
