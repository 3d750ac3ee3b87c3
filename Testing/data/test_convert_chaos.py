"""CHAOS: MR in DICOM series, masks in pictures."""

import archives
import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.convert import chaos
from TeachFormerCore.data.convert.conversion import convert
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.data.dicom import read_dicom_stack
from TeachFormerCore.data.verification import check_dataset
from TeachFormerCore.errors import InputError


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
    labels = [archives.array(tmp_path / "dst", "labelsTr", name) for name in ("MR_1", "MR_2", "MR_8")]
    for label in labels[1:]:
        np.testing.assert_array_equal(label, labels[0])  # the same anatomy, however the files are called
    assert set(np.unique(labels[0])) == {0, 1, 2, 3, 4}
    dataset = open_dataset(tmp_path / "dst")
    assert [finding.message for finding in check_dataset(dataset) if finding.severity == "fault"] == []
    images = [archives.array(tmp_path / "dst", "imagesTr", f"MR_2_000{channel}") for channel in (0, 1)]
    assert images[1].max() - images[0].max() == pytest.approx(10, abs=1)  # in phase first
    convert(chaos.archive(source, sequence="t2spir", organs="liver"), tmp_path / "liver")
    assert open_dataset(tmp_path / "liver").labels == {"background": 0, "liver": 1}
    np.testing.assert_array_equal(archives.array(tmp_path / "liver", "labelsTr", "MR_2") == 1, labels[1] == 1)


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
