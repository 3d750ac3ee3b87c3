"""A box in RAS finds the same voxels whatever grid the image has."""

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.grid import Grid
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.region import Region, parse_region


def image(direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> sitk.Image:
    made = sitk.Image(40, 50, 60, sitk.sitkFloat32)
    made.SetSpacing((2.0, 1.0, 3.0))
    made.SetOrigin((-100.0, 20.0, 700.0))
    made.SetDirection(direction)
    return made


def test_an_asymmetric_box_by_hand() -> None:
    """RAS (60, -45, 760) is LPS (-60, 45, 760): index (20, 25, 20); half-sizes 4, 2, 6 mm are 2, 2, 2 voxels."""
    region = parse_region("60,-45,760,4,2,6")
    assert region.centre == (-60.0, 45.0, 760.0)
    start, size = region.start_and_size(Grid.of(image()))
    # Voxels 18..22, 23..27 and 18..22 share space with the box (it ends in the middle of the outer ones).
    assert start == (18, 23, 18)
    assert size == (5, 5, 5)


@pytest.mark.parametrize(
    "direction", [(-1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 1, 0, 1, 0, 0, 0, 0, 1), (0, 0, -1, 1, 0, 0, 0, -1, 0)]
)
def test_on_flipped_and_permuted_grids_the_box_keeps_its_place(direction: tuple[float, ...]) -> None:
    whole = image(direction)
    centre_lps = np.array(whole.TransformContinuousIndexToPhysicalPoint((20.0, 30.0, 25.0)))
    region = Region(centre=tuple(centre_lps), half_size=(9.0, 8.0, 12.0))
    low, high = Grid.of(whole).part(*region.start_and_size(Grid.of(whole))).bounds()
    half = np.array(region.half_size)
    assert (low <= centre_lps - half + 1e-6).all()
    assert (high >= centre_lps + half - 1e-6).all()
    assert (low >= centre_lps - half - 3.01).all()  # no more than a voxel beyond
    assert (high <= centre_lps + half + 3.01).all()


def test_a_box_that_reaches_beyond_the_image_is_cut() -> None:
    start, size = parse_region("99,-21,705,1000,1000,1000").start_and_size(Grid.of(image()))
    assert start == (0, 0, 0)
    assert size == (40, 50, 60)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2,3", "six numbers"),
        ("a,b,c,d,e,f", "six numbers"),
        ("1,2,3,4,5,0", "must be positive"),
        ("1,2,nan,4,5,6", "six finite numbers|six numbers"),
        (",".join("1" * 15), "rotated box"),
    ],
)
def test_bad_boxes_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_region(text)


def test_a_box_outside_says_where_the_image_is() -> None:
    with pytest.raises(InputError, match="outside the image.*R, A, S"):
        parse_region("500,500,500,10,10,10").start_and_size(Grid.of(image()))
