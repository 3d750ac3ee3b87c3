"""BraTS 2019: labels, and the regions they are evaluated as."""

import archives
import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.convert import brats19
from TeachFormerCore.data.convert.conversion import convert
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.data.regions import from_organisers, label_of, regions_of, to_organisers
from TeachFormerCore.data.splits import patient_centres
from TeachFormerCore.data.verification import check_dataset


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
    label = archives.array(tmp_path / "dst", "labelsTr", "BraTS19_CBICA_AAB_1")
    original = archives.array(source / "HGG" / "BraTS19_CBICA_AAB_1", ".", "BraTS19_CBICA_AAB_1_seg")
    np.testing.assert_array_equal(to_organisers(label), original)
    flair = archives.array(tmp_path / "dst", "imagesTr", "BraTS19_CBICA_AAB_1_0000")
    source_flair = archives.array(source / "HGG" / "BraTS19_CBICA_AAB_1", ".", "BraTS19_CBICA_AAB_1_flair")
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
