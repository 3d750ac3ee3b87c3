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
    too_low = image(0, 0.003)
    mark_as_suv(too_low)
    with pytest.raises(InputError, match="weight and dose"):
        check_channel(too_low, channel("PET"), "a")


def body(*, offset=0.0, padding=None, air=True):
    """A CT of a leg, with bone, in air; padded as by a scanner with a round field of view."""
    y, x = np.mgrid[-1:1:60j, -1:1:60j]
    radius = np.hypot(y, x)
    plane = np.where(radius < 0.7, 40.0, -1000.0 if air else -90.0)
    plane[(radius > 0.5) & (radius < 0.6)] = -100
    plane[radius < 0.2] = 1100
    array = np.stack([plane] * 5) + np.random.default_rng(0).normal(0, 15, (5, 60, 60)) + offset
    if padding is not None:
        array[:, radius > 0.95] = padding
    return sitk.GetImageFromArray(array.astype(np.int16))


@pytest.mark.parametrize("padding", [None, -1024, -2000, -3024])
def test_a_ct_in_hu_passes_with_padding_and_without(padding):
    check_channel(body(padding=padding), channel("CT"), "a")


@pytest.mark.parametrize("padding", [-2000, -3024])
def test_padding_is_not_air(padding):
    """A CT without its rescale intercept is refused, one of tissue alone is not."""
    with pytest.raises(InputError, match=rf"a\.nii.* beside its padding of {padding}, .*rescale intercept"):
        check_channel(body(padding=padding, offset=1024), channel("CT"), "a.nii")
    check_channel(body(padding=padding, air=False), channel("CT"), "a.nii")
    with pytest.raises(InputError, match="nothing above -1100"):
        check_channel(sitk.GetImageFromArray(np.array([[[-2000.0, -3000.0]]])), channel("CT"), "a")


@pytest.mark.parametrize("highest", [0.003, 0.099])
def test_a_pet_that_is_far_too_low_is_refused(highest):
    with pytest.raises(InputError, match=rf"b\.nii\.gz reaches only {highest}, .*converted twice"):
        check_channel(image(0, highest), channel("PET"), "b.nii.gz")
    check_channel(image(0, 0.5), channel("PET"), "b.nii.gz")


def test_no_real_image_is_refused(sts):
    for file in sorted(sts.glob("images*/*_000[01].nii.gz")):
        modality = "CT" if "_0000" in file.name else "PET"
        check_channel(sitk.ReadImage(str(file)), channel(modality), file.name)
