"""Images in wrong units are refused, with the file and what to do."""

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.channels import Channel, default_normalisation
from TeachFormerCore.data.units import check_channel, mark_as_suv
from TeachFormerCore.errors import InputError


def image(*values, kind=np.float32):
    array = np.zeros((3, 4, 5), kind)
    array.flat[: len(values)] = values
    return sitk.GetImageFromArray(array)


def channel(modality):
    return Channel(modality, modality, default_normalisation(modality))


@pytest.mark.parametrize(
    ("modality", "values"),
    [
        ("CT", (-1000, 40)),
        ("CT", (-500, 40)),
        ("PET", (0, 99.9)),
        ("PET", (-0.3, 5)),
        ("MR", (0, 4000)),
        ("MR", (-700, 300)),
    ],
)
def test_right_units_pass(modality, values):
    check_channel(image(*values), channel(modality), "a.nii.gz")


@pytest.mark.parametrize(
    ("modality", "values", "words"),
    [
        ("CT", (-499, 3000), "reaches -500"),
        ("CT", (0, 4095), "HU"),
        ("PET", (0, 100.5), "--pet-units bqml"),
        ("PET", (0, 25000), "DICOM series"),
        ("PET", (-1000, 40), "not negative"),
        ("MR", (0, np.nan), "NaN"),
        ("CT", (-1000, np.inf), "infinity"),
        ("PET", (0, -np.inf), "infinity"),
        ("MR", (), "same value, 0"),
    ],
)
def test_wrong_units_are_refused_by_file(modality, values, words):
    with pytest.raises(InputError, match=r"b c\.nii\.gz") as caught:
        check_channel(image(*values), channel(modality), "b c.nii.gz")
    assert words in str(caught.value)
    assert modality in str(caught.value)


def test_integers_are_checked_too():
    check_channel(image(-1024, 70, kind=np.int16), channel("CT"), "a")
    with pytest.raises(InputError):
        check_channel(image(0, 3000, kind=np.uint16), channel("CT"), "a")


def test_suv_known_from_a_header_may_be_high_but_not_absurd():
    bladder, absurd = image(0, 160), image(0, 5000)
    for known in (bladder, absurd):
        mark_as_suv(known)
    check_channel(bladder, channel("PET"), "a")
    with pytest.raises(InputError, match="weight and dose"):
        check_channel(absurd, channel("PET"), "a")
