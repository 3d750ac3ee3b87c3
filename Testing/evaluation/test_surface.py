"""HD95 and surface Dice against cases computed by hand."""

import builtins
import math

import numpy as np
import pytest

from TeachFormerCore.errors import MissingDependencyError
from TeachFormerCore.evaluation import surface
from TeachFormerCore.evaluation.surface import SurfaceDistances, surface_distances


def box(shape, start, size) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def ball(shape, radius_mm: float, spacing) -> np.ndarray:
    squared = sum(
        ((np.arange(n) - (n - 1) / 2) * edge).reshape([-1 if i == axis else 1 for i in range(3)]) ** 2
        for axis, (n, edge) in enumerate(zip(shape, spacing, strict=True))
    )
    return squared <= radius_mm**2


def corner_area(spacing) -> float:
    """A surfel with one voxel inside: normal (1, 1, 1)/8 in voxels."""
    z, y, x = spacing
    return math.hypot(y * x, z * x, z * y) / 8


def edge_area(along: float, across_a: float, across_b: float) -> float:
    """A surfel on a straight edge: the bevel across half of each neighbouring face."""
    return along * math.hypot(across_a, across_b) / 2


def box_area(size, spacing) -> float:
    """Closed form for a box of ``size`` voxels: faces, bevelled edges, cut corners."""
    (a, b, c), (z, y, x) = size, spacing
    faces = 2 * ((a - 1) * (b - 1) * z * y + (b - 1) * (c - 1) * y * x + (a - 1) * (c - 1) * z * x)
    edges = 4 * ((a - 1) * edge_area(z, y, x) + (b - 1) * edge_area(y, z, x) + (c - 1) * edge_area(x, z, y))
    return faces + edges + 8 * corner_area(spacing)


def test_identical_boxes():
    mask = box((12, 12, 12), (3, 2, 4), (5, 6, 7))
    distances = surface_distances(mask, mask.copy(), (3.0, 2.0, 1.0))
    assert distances.hausdorff_mm() == 0
    assert distances.dice(0) == 1
    assert distances.prediction_areas.sum() == pytest.approx(box_area((5, 6, 7), (3, 2, 1)))
    assert distances.reference_areas.sum() == pytest.approx(box_area((5, 6, 7), (3, 2, 1)))


@pytest.mark.parametrize(("axis", "voxels"), [(0, 1), (0, 2), (1, 1), (1, 3), (2, 2), (2, 4)])
def test_shifted_boxes_are_apart_by_the_shift(axis, voxels):
    # A cube of 20 voxels: each face is some 16 % of the surface, so the 95th percentile is at the shifted face.
    spacing = (3.0, 2.0, 1.0)
    start = [10, 10, 10]
    reference = box((40, 40, 40), start, (20, 20, 20))
    start[axis] += voxels
    prediction = box((40, 40, 40), start, (20, 20, 20))
    distances = surface_distances(prediction, reference, spacing)
    shift = voxels * spacing[axis]
    assert distances.hausdorff_mm() == pytest.approx(shift)
    assert distances.dice(shift) == 1
    assert distances.dice(shift - 0.01) < 0.9


def test_one_voxel_has_eight_corners():
    spacing = (4.0, 2.0, 1.0)
    reference = box((5, 5, 5), (1, 2, 2), (1, 1, 1))
    prediction = box((5, 5, 5), (2, 2, 2), (1, 1, 1))
    distances = surface_distances(prediction, reference, spacing)
    assert distances.prediction_areas == pytest.approx(np.full(8, corner_area(spacing)))
    # They share four corners, the other four are a slice of 4 mm away.
    assert sorted(distances.prediction_mm) == pytest.approx([0] * 4 + [4] * 4)
    assert distances.hausdorff_mm() == pytest.approx(4)
    assert distances.dice(3) == pytest.approx(0.5)
    assert distances.dice(4) == 1


def test_surface_dice_of_boxes_a_slice_apart():
    size, (z, y, x) = (6, 8, 10), (4.0, 2.0, 2.0)
    reference = box((10, 12, 14), (1, 2, 2), size)
    prediction = box((10, 12, 14), (2, 2, 2), size)
    distances = surface_distances(prediction, reference, (z, y, x))
    # Each box's outer face is 4 mm from the other box, with its bevelled edges and corners; of its inner face all
    # that is more than one voxel (2 mm) from the side walls is 4 mm away too.
    outer = 7 * 9 * y * x + 2 * 7 * edge_area(y, z, x) + 2 * 9 * edge_area(x, z, y) + 4 * corner_area((z, y, x))
    inner = (9 - 4) * (11 - 4) * y * x
    assert distances.dice(3.0) == pytest.approx(1 - (outer + inner) / box_area(size, (z, y, x)), rel=1e-6)
    assert distances.hausdorff_mm() == pytest.approx(4)


def test_half_overlap():
    # A plate one slice thick on the lower half of one two slices thick.
    thick = box((6, 30, 30), (2, 5, 5), (2, 20, 20))
    thin = box((6, 30, 30), (2, 5, 5), (1, 20, 20))
    distances = surface_distances(thin, thick, (5.0, 1.0, 1.0))
    assert distances.hausdorff_mm() == pytest.approx(5)
    # Beyond 3 mm: the thick plate's upper face with its rim, and the thin plate's but for 3 voxels along the walls.
    upper = 19 * 19 + 4 * 19 * edge_area(1, 5, 1) + 4 * corner_area((5, 1, 1))
    middle = (21 - 2 * 4) ** 2
    total = box_area((2, 20, 20), (5, 1, 1)) + box_area((1, 20, 20), (5, 1, 1))
    assert distances.dice(3) == pytest.approx(1 - (upper + middle) / total, rel=1e-6)


def test_ball_in_a_larger_ball():
    spacing = (1.5, 1.0, 0.8)
    shape = (30, 44, 54)
    small, large = ball(shape, 12.0, spacing), ball(shape, 17.0, spacing)
    distances = surface_distances(small, large, spacing)
    assert distances.hausdorff_mm() == pytest.approx(5, abs=0.75)
    assert distances.dice(3) == 0
    assert distances.dice(6.5) == 1
    # Marching cubes on a binary ball is about a tenth too large, whatever the resolution.
    assert distances.reference_areas.sum() / (4 * math.pi * 17**2) == pytest.approx(1.09, abs=0.04)


def test_a_mask_at_the_border_ends_there():
    spacing = (3.0, 2.0, 1.0)
    reference, prediction = np.ones((4, 6, 8), bool), box((4, 6, 8), (0, 0, 0), (4, 6, 5))
    inside = surface_distances(np.pad(prediction, 3), np.pad(reference, 3), spacing)
    touching = surface_distances(prediction, reference, spacing)
    assert touching.reference_areas.sum() == pytest.approx(box_area((4, 6, 8), spacing))
    assert touching.prediction_areas.sum() == pytest.approx(box_area((4, 6, 5), spacing))
    assert touching.hausdorff_mm() == inside.hausdorff_mm() == pytest.approx(3)
    assert touching.dice(1) == pytest.approx(inside.dice(1))


def test_swapping_the_masks_changes_nothing():
    one, other = box((9, 9, 9), (1, 1, 1), (3, 5, 7)), box((9, 9, 9), (4, 2, 2), (4, 4, 4))
    a, b = surface_distances(one, other, (2, 1, 1)), surface_distances(other, one, (2, 1, 1))
    assert a.hausdorff_mm() == b.hausdorff_mm()
    assert a.dice(2) == pytest.approx(b.dice(2))


def test_an_empty_mask_has_no_surface():
    mask, nothing = box((4, 4, 4), (1, 1, 1), (2, 2, 2)), np.zeros((4, 4, 4), bool)
    assert surface_distances(mask, nothing, (1, 1, 1)) is None
    assert surface_distances(nothing, mask, (1, 1, 1)) is None


def test_percentiles_are_weighted_with_area_and_the_worse_direction_counts():
    near = {"reference_mm": np.array([0.0]), "reference_areas": np.array([1.0])}
    distances = SurfaceDistances(
        prediction_mm=np.array([7.0, 0.0, 5.0]), prediction_areas=np.array([0.5, 95.5, 4.0]), **near
    )
    assert distances.hausdorff_mm(95) == 0
    assert distances.hausdorff_mm(96) == 5
    assert distances.hausdorff_mm(100) == 7
    swapped = SurfaceDistances(
        prediction_mm=near["reference_mm"],
        prediction_areas=near["reference_areas"],
        reference_mm=distances.prediction_mm,
        reference_areas=distances.prediction_areas,
    )
    assert swapped.hausdorff_mm(99) == 5


def test_rounding_does_not_put_three_millimetres_beyond_three():
    one, other = box((9, 5, 5), (1, 1, 1), (1, 3, 3)), box((9, 5, 5), (6, 1, 1), (1, 3, 3))
    distances = surface_distances(one, other, (float(np.float32(0.6)), 1, 1))
    assert distances.prediction_mm.max() > 3
    assert distances.dice(3.0) == 1


@pytest.mark.filterwarnings("ignore")
def test_agrees_with_monai_on_irregular_masks():
    import torch
    from monai.metrics import compute_surface_dice
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(3)
    spacing = (3.27, 1.95, 1.2)
    for _ in range(3):
        masks = [gaussian_filter(random.normal(size=(16, 24, 20)), 2) > 0.04 for _ in range(2)]
        # MONAI does not close a mask at the image's border.
        one, other = (torch.from_numpy(np.pad(mask, 2))[None, None] for mask in masks)
        expected = compute_surface_dice(
            one, other, class_thresholds=[2.0], include_background=True, spacing=spacing, use_subvoxels=True
        )
        assert surface_distances(*masks, spacing).dice(2.0) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the package's own, of scipy
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.27, 1.95, 1.2)])
def test_agrees_with_the_surface_distance_package(spacing):
    theirs = pytest.importorskip(
        "surface_distance", reason="surface-distance (Apache-2.0), a development extra, is not installed"
    )
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(8)
    for size in ((16, 24, 20), (9, 9, 30), (7, 12, 10)):
        masks = [gaussian_filter(random.normal(size=size), 1.5) > 0.0 for _ in range(2)]
        ours = surface_distances(*masks, spacing)
        # Ours is prediction first, theirs reference first.
        expected = theirs.compute_surface_distances(masks[1], masks[0], spacing)
        for tolerance in (0.5, 1.0, 3.0):
            wanted = theirs.compute_surface_dice_at_tolerance(expected, tolerance)
            assert ours.dice(tolerance) == pytest.approx(wanted, abs=1e-6)
        for percent in (50, 95, 100):
            wanted = theirs.compute_robust_hausdorff(expected, percent)
            assert ours.hausdorff_mm(percent) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("package", ["monai", "scipy"])
def test_a_missing_package_is_named(monkeypatch, package):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    surface.surfel_areas.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=rf"'{package}' is not installed.*TeachFormer\[report\]"):
        surface.check_installed()
