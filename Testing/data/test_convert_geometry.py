"""A landmark placed in the source lies at the same millimetres in the result, for turned and mirrored sources."""

import archives
import numpy as np
import pytest
import SimpleITK as sitk
from archives import centre_of_mass, rotation

from TeachFormerCore.data.convert import brats19, chaos, csv_table, hecktor21, picai22
from TeachFormerCore.data.convert.conversion import convert

POSES = {
    "straight": rotation(),
    "oblique": rotation(11),
    "flipped": rotation(flips=(0, 1)),
    "mirrored": rotation(flips=(0,)),  # a left-handed grid
    "oblique and flipped": rotation(-17, flips=(1, 2)),
    "permuted": rotation(90),
}


def read(folder, name, part):
    return sitk.ReadImage(str(folder / part / f"{name}.nii.gz"))


@pytest.mark.parametrize("pose", POSES)
def test_hecktor(tmp_path, pose):
    places = archives.hecktor(tmp_path / "src", {"CHUM001": {"matrix": POSES[pose]}})
    folder = convert(hecktor21.archive(tmp_path / "src", test="none"), tmp_path / "dst").folder
    place = places["CHUM001"]
    ct, pet, label = (
        read(folder, *file)
        for file in (("CHUM001_0000", "imagesTr"), ("CHUM001_0001", "imagesTr"), ("CHUM001", "labelsTr"))
    )
    for image in (ct, pet, label):
        assert image.GetSize() == (24, 24, 24)
        assert image.GetSpacing() == (1, 1, 1)
        np.testing.assert_allclose(image.GetOrigin(), place - 12 + [0.4, 0, 0], atol=1e-3)
        np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), np.eye(3), atol=1e-6)
    # Slices of 3 mm: a linear interpolation between them moves a Gaussian's upper half by less than this.
    np.testing.assert_allclose(centre_of_mass(ct), place, atol=0.25)
    np.testing.assert_allclose(centre_of_mass(pet), place, atol=0.35)
    np.testing.assert_allclose(centre_of_mass(label), place, atol=0.5)


@pytest.mark.parametrize("pose", ["oblique", "oblique and flipped"])
def test_picai(tmp_path, pose):
    places = archives.picai(tmp_path / "src", {"10001_1000001": 3}, matrix=POSES[pose])
    folder = convert(picai22.archive(tmp_path / "src", test="none"), tmp_path / "dst").folder
    t2w = read(folder, "10001_1000001_0000", "imagesTr")
    assert t2w.GetSize() == (384, 384, 24)
    assert t2w.GetSpacing() == (0.5, 0.5, 3)
    np.testing.assert_allclose(np.reshape(t2w.GetDirection(), (3, 3)), POSES[pose], atol=1e-5)
    source = sitk.ReadImage(str(tmp_path / "src/images/10001/10001_1000001_t2w.mha"))
    middles = [
        i.TransformContinuousIndexToPhysicalPoint(((np.array(i.GetSize()) - 1) / 2).tolist()) for i in (t2w, source)
    ]
    np.testing.assert_allclose(*middles, atol=1e-3)
    # A corner of 48 x 48 mm holds the landmark: sums over all of it would be slow.
    for part, name, within in (("imagesTr", "10001_1000001_0001", 0.4), ("labelsTr", "10001_1000001", 0.7)):
        small = read(folder, name, part)[144:240, 144:240, :]
        np.testing.assert_allclose(centre_of_mass(small), places["10001_1000001"], atol=within)


def test_brats(tmp_path):
    place = archives.brats(tmp_path / "src", {"BraTS19_CBICA_AAB_1": "HGG"})
    folder = convert(brats19.archive(tmp_path / "src"), tmp_path / "dst").folder
    for name, part in (("BraTS19_CBICA_AAB_1_0002", "imagesTr"), ("BraTS19_CBICA_AAB_1", "labelsTr")):
        np.testing.assert_allclose(centre_of_mass(read(folder, name, part)), place, atol=0.3)


@pytest.mark.parametrize("pose", ["straight", "oblique", "flipped", "oblique and flipped"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sequence", ["t1dual", "t2spir"])
def test_chaos(tmp_path, pose, reverse, sequence):
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra dicom)")
    places = archives.chaos(tmp_path / "src", {"3": {"matrix": POSES[pose], "reverse": reverse}})
    folder = convert(chaos.archive(tmp_path / "src", sequence=sequence), tmp_path / "dst").folder
    image, label = read(folder, "MR_3_0000", "imagesTr"), read(folder, "MR_3", "labelsTr")
    np.testing.assert_allclose(centre_of_mass(image), places["3"], atol=0.4)
    # Organs off the image's middle tell whether rows or columns were mirrored.
    for value, shift in enumerate(archives.ORGAN_SHIFTS, start=1):
        expected = places["3"] + POSES[pose] @ shift
        np.testing.assert_allclose(centre_of_mass(label == value), expected, atol=0.9)


@pytest.mark.parametrize("pose", ["oblique", "mirrored"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_csv(tmp_path, pose, ending):
    source, place = tmp_path / "src", np.array([10.0, 20.0, 30.0])
    source.mkdir()
    fine = archives.empty((30, 30, 20), (1, 1, 1.5), place + 2, POSES[pose])
    coarse = archives.empty((15, 16, 12), (3, 3, 3), place - 1, rotation())
    for name, image in (
        ("a", archives.blob(fine, place)),
        ("b", archives.blob(coarse, place)),
        ("seg", archives.ball(coarse, place, value=2)),
    ):
        sitk.WriteImage(image, str(source / f"{name}{ending}"))
    (source / "t.csv").write_text(f"case,T1,T2,label\nx,a{ending},b{ending},seg{ending}\n", encoding="utf-8")
    folder = convert(csv_table.archive(source), tmp_path / "dst").folder
    for name, part in (("x_0000", "imagesTr"), ("x_0001", "imagesTr")):
        np.testing.assert_allclose(centre_of_mass(read(folder, name, part)), place, atol=0.3)
    assert read(folder, "x", "labelsTr").GetSize() == fine.GetSize()
    np.testing.assert_allclose(centre_of_mass(read(folder, "x", "labelsTr") == 2), place, atol=0.6)
