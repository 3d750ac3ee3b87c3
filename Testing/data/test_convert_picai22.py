"""PI-CAI 2022 as volumes and as slices."""

import shutil
from collections import Counter

import archives
import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.convert import picai22
from TeachFormerCore.data.convert.conversion import convert
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.data.splits import make_splits, patient_centres
from TeachFormerCore.errors import InputError

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
    label = archives.array(tmp_path / "dst", f"labels{archive.cases[0].split}", "10001_1000001")
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
