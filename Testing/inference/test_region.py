"""A box in RAS finds the same voxels whatever grid the image has."""

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.grid import Grid
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.region import Region, parse_region, region_notices, share_covered


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
        ("1,2,nan,4,5,6", r"six finite numbers CX,.*, not 1\.0,2\.0,nan,"),
        ("inf,2,3,4,5,6", "six finite numbers"),
        (",".join("1" * 15), "rotated box"),
    ],
)
def test_bad_boxes_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_region(text)


def test_a_box_outside_says_where_the_image_is() -> None:
    with pytest.raises(InputError, match="outside the image.*R, A, S"):
        parse_region("500,500,500,10,10,10").start_and_size(Grid.of(image()))


def label(*filled: tuple[int, int, int]) -> np.ndarray:
    """On the grid of `image`, ``(z, y, x)``."""
    array = np.zeros((60, 50, 40), np.uint8)
    for place in filled:
        array[place] = 1
    return array


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, -1, 0, 1, 0, 0, 0, 0, 1)])
@pytest.mark.parametrize(
    ("shift", "said"),
    [((0, 0, 0), None), ((8, 0, 0), "50 %"), ((4, 5, 0), "56 %"), ((15.9, 19, 0), "less than 1 %")],
)
def test_the_share_of_a_box_that_lies_outside_is_told(
    direction: tuple[float, ...], shift: tuple[float, ...], said: str | None
) -> None:
    """A box of 16 x 20 x 18 mm in a corner, moved outwards by some millimetres."""
    grid = Grid.of(image(direction))
    low, high = grid.bounds()
    half = np.array([8.0, 10.0, 9.0])
    region = Region(centre=tuple(low + half - shift), half_size=tuple(half))
    notices = region_notices(region, grid, label())
    if said is None:
        assert notices == []
    else:
        assert notices == [f"Of the region's box, {said} lies inside the image: the rest was not computed."]
    assert len(region_notices(Region(centre=tuple((low + high) / 2), half_size=tuple(high)), grid, label())) == 1


@pytest.mark.parametrize(
    ("place", "reaches"),
    [((20, 25, 20), False), ((18, 25, 20), True), ((22, 25, 20), True), ((20, 25, 18), True), ((20, 27, 20), True)],
)
def test_a_mask_at_the_wall_of_the_box_is_told(place: tuple[int, int, int], reaches: bool) -> None:
    region = parse_region("60,-45,760,4,2,6")  # voxels 18..22, 23..27 and 18..22
    notices = region_notices(region, Grid.of(image()), label(place))
    assert [notice.startswith("What was segmented reaches the wall") for notice in notices] == [True] * reaches


def test_the_wall_of_the_image_is_none_of_the_box() -> None:
    grid = Grid.of(image())
    everything = np.ones((60, 50, 40), np.uint8)
    low, high = grid.bounds()
    whole = Region(centre=tuple((low + high) / 2), half_size=tuple((high - low) / 2))
    assert region_notices(whole, grid, everything) == []


def test_how_much_of_a_grid_another_covers() -> None:
    grid = Grid.of(image())
    assert share_covered(grid, by=grid) == 1
    assert share_covered(grid.part((0, 0, 0), (40, 50, 30)), by=grid) == 1
    assert share_covered(grid, by=grid.part((0, 0, 0), (40, 50, 30))) == pytest.approx(0.5, abs=0.02)
    assert share_covered(grid, by=grid.part((10, 0, 29), (30, 50, 1))) == pytest.approx(0.75 / 60, abs=0.01)
