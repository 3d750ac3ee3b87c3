"""Geometry: round trips on oblique grids, closed forms, and images that move exactly."""

import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from TeachFormerCore.data.grid import Grid, patient_grid, resample
from TeachFormerCore.data.image import voxels

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def grid_of(size=(4, 5, 6), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=IDENTITY) -> Grid:
    return Grid(size=size, spacing=spacing, origin=origin, direction=tuple(direction))


def rotation(x: float, y: float, z: float) -> tuple[float, ...]:
    """Row-major matrix of turns about x, then y, then z, in degrees."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (x, y, z))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return tuple((about_z @ about_y @ about_x).ravel().tolist())


def box(centre, sides, direction=IDENTITY) -> Grid:
    """A grid of 2 x 2 x 2 voxels whose field of view is a box with this centre and these sides."""
    spacing = np.asarray(sides) / 2
    origin = np.asarray(centre) - np.reshape(direction, (3, 3)) @ (spacing / 2)
    return grid_of((2, 2, 2), tuple(spacing.tolist()), tuple(origin.tolist()), direction)


def image_of(grid: Grid, array: np.ndarray | None = None) -> sitk.Image:
    image = sitk.GetImageFromArray(np.zeros(grid.size[::-1], np.float32) if array is None else array)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


angles = st.floats(-180, 180)
millimetres = st.floats(-300, 300)
grids = st.builds(
    lambda size, spacing, origin, turn: grid_of(size, spacing, origin, rotation(*turn)),
    st.tuples(*[st.integers(1, 60)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.tuples(*[millimetres] * 3),
    st.tuples(*[angles] * 3),
)


@settings(max_examples=60, deadline=None)
@given(grids, st.tuples(*[st.floats(-20, 80)] * 3))
def test_points_agree_with_itk_and_come_back(grid, index):
    point = grid.point(np.array(index))
    assert np.allclose(
        point,
        image_of(grid_of((2, 2, 2), grid.spacing, grid.origin, grid.direction)).TransformContinuousIndexToPhysicalPoint(
            index
        ),
        atol=1e-6,
    )
    assert np.allclose(grid.index(point), index, atol=1e-8)
    assert np.allclose(grid.index(np.stack([point, point])), [index, index], atol=1e-8)


def test_a_point_by_hand():
    """A quarter turn about z: index x runs along +y, index y along -x."""
    grid = grid_of(spacing=(2, 3, 4), origin=(10, 20, 30), direction=(0, -1, 0, 1, 0, 0, 0, 0, 1))
    assert grid.point(np.array([1, 2, 3])).tolist() == [4, 22, 42]
    assert grid.index(np.array([4, 22, 42])).tolist() == [1, 2, 3]


def test_bounds_are_voxel_edges():
    low, high = grid_of((4, 5, 6), (1, 2, 3), (10, 20, 30)).bounds()
    assert low.tolist() == [9.5, 19, 28.5]
    assert high.tolist() == [13.5, 29, 46.5]


def test_bounds_of_a_turned_cube():
    low, high = box((1, 2, 3), (10, 10, 10), rotation(0, 0, 45)).bounds()
    assert np.allclose(low, [1 - 50**0.5, 2 - 50**0.5, -2])
    assert np.allclose(high, [1 + 50**0.5, 2 + 50**0.5, 8])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_field_of_view_follows_the_patient(order, signs):
    """Index axis i runs along patient axis ``order[i]``; the extents come out as L, P, S whatever the order."""
    direction = np.zeros((3, 3))
    size, spacing = [0, 0, 0], [0.0, 0.0, 0.0]
    for axis, patient in enumerate(order):
        direction[patient, axis] = signs[axis]
        size[axis], spacing[axis] = (10, 20, 30)[patient], (1.0, 2.0, 0.5)[patient]
    grid = grid_of(tuple(size), tuple(spacing), direction=direction.ravel().tolist())
    assert grid.field_of_view_mm() == (10, 40, 15)


def test_field_of_view_of_a_slightly_turned_grid():
    assert grid_of((10, 20, 30), direction=rotation(20, -15, 10)).field_of_view_mm() == (10, 20, 30)


def test_field_of_view_of_a_double_oblique_grid():
    """The second index axis lies nearest to L too (0.6), which the first (0.8) has taken: S is left for it."""
    c, s = math.cos(math.radians(46)), math.sin(math.radians(46))
    columns = [(0.8, -0.6 * c, -0.6 * s), (0.6, 0.8 * c, 0.8 * s), (0, -s, c)]
    grid = grid_of((10, 20, 30), direction=np.array(columns).T.ravel().tolist())
    assert grid.field_of_view_mm() == (10, 30, 20)


def test_same_as_allows_a_hundredth_of_a_voxel():
    grid = grid_of((40, 40, 40), (1, 1, 2))
    assert grid.same_as(grid_of((40, 40, 40), (1, 1, 2), (0.009, 0, 0)))
    assert not grid.same_as(grid_of((40, 40, 40), (1, 1, 2), (0.011, 0, 0)))
    assert not grid.same_as(grid_of((40, 40, 41), (1, 1, 2)))
    # A small error of spacing or angle counts where it shows: at the far end.
    assert grid.same_as(grid_of((40, 40, 40), (1.0001, 1, 2)))
    assert not grid.same_as(grid_of((40, 40, 40), (1.001, 1, 2)))
    assert not grid.same_as(grid_of((40, 40, 40), (1, 1, 2), direction=rotation(0, 0, 0.1)))
    # The same field of view, counted from another corner, is not the same grid.
    assert not grid.same_as(grid_of((40, 40, 40), (1, 1, 2), (39, 0, 0), (-1, 0, 0, 0, 1, 0, 0, 0, 1)))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (box((9.9, 0, 0), (10, 10, 10)), True),
        (box((10.1, 0, 0), (10, 10, 10)), False),
        (box((0, 0, 0), (1, 1, 1)), True),  # wholly inside
        (box((0, 0, 0), (100, 100, 100)), True),  # wholly around
        # A cube on its edge reaches half its diagonal, 7.071.
        (box((12.06, 0, 0), (10, 10, 10), rotation(0, 0, 45)), True),
        (box((12.08, 0, 0), (10, 10, 10), rotation(0, 0, 45)), False),
        # Its bounding box overlaps at the corner, the cube itself does not.
        (box((10.5, 10.5, 0), (10, 10, 10), rotation(0, 0, 45)), False),
        (box((8.4, 8.4, 0), (10, 10, 10), rotation(0, 0, 45)), True),
    ],
)
def test_overlaps(other, expected):
    cube = box((0, 0, 0), (10, 10, 10))
    assert cube.overlaps(other) is expected
    assert other.overlaps(cube) is expected


@pytest.mark.parametrize(("distance", "expected"), [(2 * 2**0.5 - 0.01, True), (2 * 2**0.5 + 0.01, False)])
def test_two_crossing_edges_that_nearly_touch(distance, expected):
    """No face of either cube separates them: only the plane spanned by the two edges does."""
    one = box((0, 0, 0), (2, 2, 2), rotation(0, 0, 45))
    two = box((distance, 0, 0), (2, 2, 2), rotation(0, 45, 0))
    assert one.overlaps(two) is expected
    assert two.overlaps(one) is expected


@settings(max_examples=40, deadline=None)
@given(grids, grids)
def test_overlap_where_a_voxel_of_one_lies_in_the_other(one, two):
    steps = [np.linspace(-0.5, n - 0.5, 7) for n in two.size]
    points = two.point(np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3))
    index = one.index(points)
    inside = ((index > -0.499) & (index < np.array(one.size) - 0.501)).all(axis=1).any()
    assert one.overlaps(two) or not inside


def test_patient_grid_by_hand():
    """10 x 20 x 30 voxels of 1 x 1 x 2 mm at 3 mm: 4 x 7 x 20 voxels around the same centre."""
    grid = patient_grid(grid_of((10, 20, 30), (1, 1, 2), (100, 200, 300)), (3, 3, 3))
    assert grid.size == (4, 7, 20)
    assert grid.direction == IDENTITY
    centre = np.array([104.5, 209.5, 329])
    assert np.allclose(grid.point((np.array(grid.size) - 1) / 2), centre)
    assert patient_grid(grid_of((10, 20, 30), (0.3, 0.3, 0.3)), (0.3, 0.3, 0.3)).size == (10, 20, 30)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(2, 20)] * 3),
    st.tuples(*[st.floats(0.5, 5)] * 3),
    st.tuples(*[millimetres] * 3),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.booleans()] * 3),
)
def test_patient_grid_of_flipped_and_permuted_copies(size, spacing, origin, order, flips):
    image = image_of(grid_of(size, spacing, origin))
    copy = sitk.PermuteAxes(sitk.Flip(image, flips), order)
    one, other = (patient_grid(Grid.of(each), (2.0, 2.5, 3.0)) for each in (image, copy))
    assert one.same_as(other)


@settings(max_examples=40, deadline=None)
@given(grids)
def test_patient_grid_covers_the_field_of_view(grid):
    cover = patient_grid(grid, (2.0, 2.5, 3.0))
    index = cover.index(grid.corners())
    assert (index > -0.51).all()
    assert (index < np.array(cover.size) - 0.49).all()


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[angles] * 3),
    st.tuples(*[angles] * 3),
    st.tuples(*[st.floats(0.7, 4)] * 3),
    st.tuples(*[millimetres] * 3),
)
def test_a_linear_ramp_moves_exactly(turn, other_turn, spacing, centre):
    """Linear interpolation of a linear function is that function, between any two oblique grids."""
    slope = np.array([0.3, -0.7, 0.2])
    source = box(centre, (40, 40, 40), rotation(*turn))
    source = grid_of((20, 20, 20), (2, 2, 2), tuple(source.point(np.full(3, -0.45)).tolist()), source.direction)
    index = np.stack(np.meshgrid(*map(np.arange, source.size), indexing="ij"), axis=-1)
    ramp = (source.point(index) - np.array(centre)) @ slope
    image = image_of(source, ramp.transpose(2, 1, 0).astype(np.float32))
    target = box(centre, (30, 30, 30), rotation(*other_turn))
    target = grid_of((8, 9, 10), spacing, tuple(target.point(np.full(3, 0.5)).tolist()), target.direction)
    result = voxels(resample(image, target, background=-999.0))
    index = np.stack(np.meshgrid(*map(np.arange, target.size), indexing="ij"), axis=-1)
    points = target.point(index)
    place = source.index(points)
    inside = ((place >= 0) & (place <= 19)).all(axis=-1)
    outside = ((place < -0.51) | (place > 19.51)).any(axis=-1)
    expected = (points - np.array(centre)) @ slope
    moved = result.transpose(2, 1, 0)
    assert inside.sum() > 20
    assert np.abs(moved - expected)[inside].max() < 1e-3
    assert (moved[outside] == -999).all()
    assert result.dtype == np.float32


def test_labels_keep_their_values_and_type():
    array = np.zeros((6, 6, 6), np.uint8)
    array[2:4, 2:4, 2:4] = 3
    label = image_of(grid_of((6, 6, 6), (2, 2, 2)), array)
    fine = resample(label, grid_of((12, 12, 12), (1, 1, 1), (-0.5, -0.5, -0.5)), nearest=True)
    assert fine.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(voxels(fine), array.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    outside = resample(label, grid_of((2, 2, 2), origin=(500, 0, 0)), background=9, nearest=True)
    assert (voxels(outside) == 9).all()


def test_describe():
    assert grid_of((120, 80, 40), (1.953, 1.953, 3.27)).describe() == "120 x 80 x 40 voxels of 1.95 x 1.95 x 3.27 mm"
