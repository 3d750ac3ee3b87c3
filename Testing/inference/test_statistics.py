"""``statistics.json``: volumes, distributions and PET measures against closed forms."""

import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.grid import Grid
from TeachFormerCore.inference import statistics as module
from TeachFormerCore.inference.statistics import PEAK_RADIUS_MM, sphere_weights, statistics, suv_peak

CARD = {
    "channels": [{"name": "CT", "modality": "CT"}, {"name": "PET", "modality": "PET"}],
    "labels": [{"value": 0, "name": "background"}, {"value": 1, "name": "tumour"}, {"value": 2, "name": "node"}],
}
OBLIQUE = tuple(
    float(v)
    for v in (
        sitk.VersorTransform((0.3, -0.5, 0.81), 0.7).GetMatrix()  # rotation matrices are row-major, as directions are
    )
)


def image(array, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None):
    result = sitk.GetImageFromArray(np.asarray(array))
    result.SetSpacing(spacing)
    result.SetOrigin(origin)
    if direction:
        result.SetDirection(direction)
    return result


def measure(label, images, uncertainty=None, pet_units="as given (SUV)"):
    result = statistics(label, images, CARD, uncertainty, ["a notice"], pet_units, "ct.nii.gz")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def peak(mask, pet, spacing):
    return suv_peak(mask, image(pet, spacing), Grid.of(image(mask.astype(np.uint8), spacing)))


def box(shape, low, high, kind=np.uint8):
    array = np.zeros(shape, kind)
    array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return array


def test_the_contract_s_keys():
    label = box((8, 9, 10), (2, 2, 2), (5, 6, 7))
    values = np.random.default_rng(0).normal(3, 0.4, label.shape).astype(np.float32)
    result = measure(image(label), {"CT": image(values), "PET": image(values)}, image(values))
    assert list(result) == ["reference", "notices", "pet_units", "labels"]
    assert (result["reference"], result["notices"], result["pet_units"]) == (
        "ct.nii.gz",
        ["a notice"],
        "as given (SUV)",
    )
    assert [(entry["value"], entry["name"]) for entry in result["labels"]] == [(1, "tumour"), (2, "node")]
    assert list(result["labels"][0]) == [
        "value", "name", "voxels", "volume_mm3", "volume_ml", "components", "mean_uncertainty", "channels", "pet",
    ]  # fmt: skip
    assert list(result["labels"][0]["channels"]["CT"]) == ["mean", "sd", "min", "max", "p5", "p50", "p95"]
    assert list(result["labels"][0]["pet"]) == ["suv_max", "suv_mean", "suv_peak", "mtv_ml", "tlg"]


@pytest.mark.parametrize("direction", [None, OBLIQUE, (-1.0, 0, 0, 0, 0, 1.0, 0, 1.0, 0)])
def test_volume_on_anisotropic_and_oblique_grids(direction):
    label = image(box((12, 14, 16), (3, 4, 5), (8, 10, 12)), (0.9, 1.7, 3.3), (-50.0, 20.0, 7.0), direction)
    entry = measure(label, {})["labels"][0]
    assert entry["voxels"] == 5 * 6 * 7
    assert entry["volume_mm3"] == pytest.approx(210 * 0.9 * 1.7 * 3.3, rel=1e-9)
    assert entry["volume_ml"] == pytest.approx(entry["volume_mm3"] / 1000, rel=1e-12)


def test_components_join_at_corners():
    label = np.zeros((6, 6, 6), np.uint8)
    label[0, 0, 0] = label[1, 1, 1] = 1
    label[3:5, 3:5, 3:5] = 1
    label[5, 0, 5] = 1
    label[2, 2, 2] = 2  # another label joins nothing of this one
    labels = measure(image(label), {})["labels"]
    assert labels[0]["components"] == 3
    assert labels[1]["components"] == 1


def test_distribution_is_of_the_label_s_own_voxels():
    label = np.zeros((5, 5, 5), np.uint8)
    label[0] = 1
    label[1, :2, :2] = 2
    values = np.full(label.shape, 1e4, np.float32)
    values[0].flat = np.arange(25)
    values[1, :2, :2] = [[-3, 1], [1, 5]]
    uncertainty = np.where(label == 1, 0.25, 0.75).astype(np.float32)
    first, second = measure(image(label), {"CT": image(values)}, image(uncertainty))["labels"]
    expected = {"mean": 12, "sd": np.sqrt(52), "min": 0, "max": 24, "p5": 1.2, "p50": 12, "p95": 22.8}
    assert first["channels"]["CT"] == pytest.approx(expected)
    assert second["channels"]["CT"]["mean"] == 1
    assert second["channels"]["CT"]["sd"] == pytest.approx(np.sqrt(8))
    assert (first["mean_uncertainty"], second["mean_uncertainty"]) == (0.25, 0.75)
    assert first["pet"] is None


def test_pet_units_are_none_without_pet():
    assert measure(image(box((4, 4, 4), (1, 1, 1), (2, 2, 2))), {}, pet_units="left over")["pet_units"] is None


def test_uniform_pet():
    label = image(box((20, 20, 20), (0, 5, 5), (10, 15, 15)), (2.0, 2.0, 3.0))
    pet = image(np.full((20, 20, 20), 4.0, np.float32), (2.0, 2.0, 3.0))
    found = measure(label, {"PET": pet})["labels"][0]["pet"]
    assert found == pytest.approx(
        {"suv_max": 4, "suv_mean": 4, "suv_peak": 4, "mtv_ml": 1000 * 12 / 1000, "tlg": 48}, rel=1e-9
    )


def test_tlg_is_mean_times_volume():
    label = box((6, 6, 6), (1, 1, 1), (3, 3, 3))
    values = np.arange(216, dtype=np.float32).reshape(6, 6, 6) / 10
    found = measure(image(label, (2.0, 3.0, 4.0)), {"PET": image(values, (2.0, 3.0, 4.0))})["labels"][0]["pet"]
    mean = values[1:3, 1:3, 1:3].mean()
    assert found["mtv_ml"] == pytest.approx(8 * 24 / 1000)
    assert found["tlg"] == pytest.approx(mean * 8 * 24 / 1000, rel=1e-6)


def test_images_are_measured_where_they_are_in_space():
    """A linear field on a grid of its own, coarser, shifted and turned, read at the label's voxels."""
    spacing, origin = (1.5, 2.0, 2.5), (3.0, -4.0, 5.0)
    label = image(box((10, 12, 14), (3, 4, 5), (6, 8, 10)), spacing, origin)
    other = image(
        np.zeros((24, 24, 24), np.float32), (3.0, 3.0, 3.0), (50.0, -20.0, -20.0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    )
    field = Grid.of(other).point(np.stack(np.meshgrid(*[range(24)] * 3, indexing="ij"), -1))  # x, y, z order
    other = image(
        (field @ [0.5, -0.25, 0.125]).T.astype(np.float32), (3.0, 3.0, 3.0), other.GetOrigin(), other.GetDirection()
    )
    found = measure(label, {"CT": other})["labels"][0]["channels"]["CT"]
    centre = np.array(origin) + np.array([7.0, 5.5, 4.0]) * spacing
    assert found["mean"] == pytest.approx(centre @ [0.5, -0.25, 0.125], rel=1e-4)
    lowest = np.array(origin) + np.array([5.0, 7.0, 3.0]) * spacing
    assert found["min"] == pytest.approx(lowest @ [0.5, -0.25, 0.125], rel=1e-4)


def test_voxels_that_an_image_does_not_cover_are_left_out():
    label = image(box((10, 10, 10), (2, 2, 2), (8, 8, 8)))
    half = image(np.full((10, 10, 5), 7.0, np.float32))
    found = measure(label, {"CT": half, "PET": half})["labels"][0]
    assert found["channels"]["CT"]["min"] == found["channels"]["CT"]["mean"] == 7
    assert found["pet"]["suv_peak"] == pytest.approx(7)
    assert found["pet"]["mtv_ml"] == pytest.approx(0.216)
    assert found["pet"]["tlg"] is None
    away = image(np.full((10, 10, 5), 7.0, np.float32), origin=(500.0, 0.0, 0.0))
    found = measure(label, {"PET": away})["labels"][0]
    assert found["channels"]["PET"]["mean"] is None
    assert found["pet"] == {
        "suv_max": None,
        "suv_mean": None,
        "suv_peak": None,
        "mtv_ml": pytest.approx(0.216),
        "tlg": None,
    }


def test_a_pet_of_one_slice_gives_no_tlg_and_says_so():
    """Of ten slices, of which the tumour has five."""
    label = box((10, 8, 8), (2, 2, 2), (7, 6, 6))
    label[9, 7, 7] = 2
    pet = np.zeros((10, 8, 8), np.float32)
    pet[4] = 8
    result = measure(image(label), {"PET": image(pet)[:, :, 4:5]})
    tumour, node = (entry["pet"] for entry in result["labels"])
    assert (tumour["suv_max"], tumour["suv_mean"], tumour["mtv_ml"], tumour["tlg"]) == (8, 8, pytest.approx(0.08), None)
    assert (node["suv_max"], node["tlg"]) == (None, None)
    assert result["notices"] == [
        "a notice",
        "PET covers 20 % of the volume of tumour: its SUV figures are of that part, and TLG is left out.",
        "PET covers less than 1 % of the volume of node: its SUV figures are of that part, and TLG is left out.",
    ]
    whole = measure(image(label), {"PET": image(pet)})
    assert whole["notices"] == ["a notice"]
    assert whole["labels"][0]["pet"]["tlg"] == pytest.approx(8 / 5 * 0.08)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.3, 1.7, 2.2), (9.0, 9.0, 9.0)])
@pytest.mark.parametrize("direction", [None, OBLIQUE])
def test_suv_max_is_of_the_pet_s_own_voxels(spacing, direction):
    """One hot voxel of 4 mm between the voxels of the label, finer or coarser: interpolation stays below it."""
    pet = np.ones((13, 13, 13), np.float32)
    pet[6, 6, 6] = 20
    pet[0, 0, 0] = 50  # outside the mask
    origin = np.reshape(direction or np.eye(3), (3, 3)) @ [-24.0, -24.0, -24.0]  # so that it lies at 0
    pet = image(pet, (4.0, 4.0, 4.0), origin, direction)
    size = [int(40 // mm) for mm in spacing]
    label = np.ones(size[::-1], np.uint8)
    origin = [-mm * n / 2 + 0.5 * mm + 0.3 for mm, n in zip(spacing, size, strict=True)]
    found = measure(image(label, spacing, origin), {"PET": pet})["labels"][0]
    assert found["channels"]["PET"]["max"] < 19
    assert found["pet"]["suv_max"] == 20


def test_suv_max_of_a_mask_between_the_pet_s_voxels_is_interpolated():
    pet = np.zeros((4, 4, 4), np.float32)
    pet[:, :, 2:] = 6
    found = measure(image(np.ones((1, 1, 1), np.uint8), origin=(6.0, 6.0, 6.0)), {"PET": image(pet, (4.0, 4.0, 4.0))})
    assert found["labels"][0]["pet"]["suv_max"] == pytest.approx(3)


def test_empty_labels_give_zeros_and_nulls():
    values = image(np.ones((4, 4, 4), np.float32))
    for entry in measure(image(np.zeros((4, 4, 4), np.uint8)), {"CT": values, "PET": values}, values)["labels"]:
        assert (entry["voxels"], entry["volume_mm3"], entry["volume_ml"], entry["components"]) == (0, 0, 0, 0)
        assert entry["mean_uncertainty"] is None
        assert set(entry["channels"]["CT"].values()) == {None}
        assert entry["pet"] == {"suv_max": None, "suv_mean": None, "suv_peak": None, "mtv_ml": 0, "tlg": 0}


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (1.95, 1.95, 3.27), (4.07, 4.07, 5.0), (9.0, 9.0, 20.0)])
def test_the_sphere_has_one_millilitre(spacing):
    weights = sphere_weights(spacing)
    assert all(n % 2 == 1 for n in weights.shape)
    assert weights.sum() * np.prod(spacing) == pytest.approx(1000, rel=0.005)
    np.testing.assert_array_equal(weights, weights[::-1, ::-1, ::-1])


def cap(half_edge):
    """Part of the 1 mL sphere beyond a plane at a distance: pi h^2 (3 r - h) / 3."""
    height = max(0.0, PEAK_RADIUS_MM - half_edge)
    return np.pi * height**2 * (3 * PEAK_RADIUS_MM - height) / 3 / 1000


@pytest.mark.parametrize(("spacing", "caps"), [((9.0, 9.0, 9.0), 6), ((9.0, 9.0, 20.0), 4), ((20.0, 20.0, 9.0), 2)])
def test_peak_on_coarse_grids_counts_parts_of_voxels(spacing, caps):
    """One hot voxel, larger than the sphere but for its caps: at 9 mm these do not meet at the edges."""
    pet = np.zeros((5, 5, 5), np.float32)
    pet[2, 2, 2] = 10
    assert peak(pet > 0, pet, spacing) == pytest.approx(10 * (1 - caps * cap(4.5)), rel=0.005)
    beside = np.zeros((5, 5, 5), bool)
    beside[(3, 2, 2) if spacing[2] == 9 else (2, 2, 3)] = True
    assert peak(beside, pet, spacing) == pytest.approx(10 * cap(4.5), rel=0.03)


def test_peak_of_a_hot_sphere_of_one_millilitre():
    spacing = (0.8, 0.8, 0.8)
    at = (np.indices((31, 31, 31)) - 15) * 0.8
    distance = np.sqrt((at**2).sum(axis=0))
    pet = np.where(distance <= PEAK_RADIUS_MM, 10.0, 1.0).astype(np.float32)
    found = peak(distance <= PEAK_RADIUS_MM, pet, spacing)
    assert 9.5 < found <= 10
    # A sphere of half the radius holds an eighth of the volume.
    small = np.where(distance <= PEAK_RADIUS_MM / 2, 10.0, 1.0)
    expected = 1 + 9 * np.count_nonzero(small > 1) * 0.8**3 / 1000
    assert peak(small > 1, small.astype(np.float32), spacing) == pytest.approx(expected, rel=0.005)


def test_peak_of_a_ramp_is_its_value_at_the_extreme_centre():
    spacing = (2.0, 2.0, 3.0)
    pet = np.broadcast_to(np.arange(30, dtype=np.float32), (16, 20, 30)).copy()
    mask = box((16, 20, 30), (5, 6, 4), (11, 14, 21), bool)
    assert peak(mask, pet, spacing) == pytest.approx(20, rel=1e-6)
    # At the image's edge only the half of the sphere that is inside counts, and its mean lies deeper: nearly the
    # half-ball's centroid, 3/8 r, taken from the edge voxel's outer face on.
    edge = peak(box((16, 20, 30), (5, 6, 20), (11, 14, 30), bool), pet, spacing)
    assert 29 - 3 / 8 * PEAK_RADIUS_MM / 2 < edge < 29 - 0.5


def test_peak_is_centred_in_the_mask_but_may_reach_out_of_it():
    pet = np.zeros((30, 30, 30), np.float32)
    pet[:, :, 16:] = 8
    mask = box((30, 30, 30), (10, 10, 8), (20, 20, 16), bool)
    # The outermost centre is half a voxel (0.5 mm) before the hot half-space.
    assert peak(mask, pet, (1.0, 1.0, 1.0)) == pytest.approx(8 * cap(0.5), rel=0.005)


def direct_peak(mask, pet, spacing):
    weights = sphere_weights(spacing)
    reach = [n // 2 for n in weights.shape]
    padded = np.pad(pet.astype(float), [(r, r) for r in reach])
    inside = np.pad(np.ones(pet.shape), [(r, r) for r in reach])
    best = -np.inf
    for z, y, x in np.argwhere(mask):
        window = tuple(slice(i, i + n) for i, n in zip((z, y, x), weights.shape, strict=True))
        best = max(best, (padded[window] * weights).sum() / (inside[window] * weights).sum())
    return best


@pytest.mark.parametrize("block", [96, 7, 5])
def test_peak_agrees_with_the_plain_sum_in_blocks_of_any_size(block, monkeypatch):
    monkeypatch.setattr(module, "PEAK_BLOCK", block)
    rng = np.random.default_rng(5)
    pet = rng.gamma(1, 3, (14, 16, 18)).astype(np.float32)
    mask = rng.random(pet.shape) < 0.05
    mask[0, 0, 0] = mask[-1, -1, -1] = True
    spacing = (2.5, 3.0, 4.0)
    assert peak(mask, pet, spacing) == pytest.approx(direct_peak(mask, pet, spacing), rel=1e-9)


def test_scipy_is_not_needed():
    code = "import sys; sys.modules['scipy'] = None; import TeachFormerCore.inference.statistics as s; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout.strip() == "ok", done.stderr
