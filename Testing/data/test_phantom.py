"""The synthetic thigh: its geometry, its values tissue by tissue, and that it is always the same."""

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data import phantom as module
from TeachFormerCore.data.phantom import Phantom, thigh_phantom

SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return thigh_phantom(0)


def arrays(phantom: Phantom) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images = (phantom.images["CT"], phantom.images["PET"], phantom.label)
    ct, pet, label = (sitk.GetArrayFromImage(image) for image in images)
    return ct.astype(float), pet, label > 0


def distance_inside(label: sitk.Image) -> np.ndarray:
    """mm from the mask's border, positive inside it."""
    image = sitk.SignedMaurerDistanceMap(label, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return sitk.GetArrayFromImage(image)


def at(phantom: Phantom, name: str, *from_centre: float) -> float:
    """The mean of an image in 4 mm around a point given in mm from the field's centre."""
    image = phantom.images[name]
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
    x, y, z = image.TransformPhysicalPointToIndex((centre + from_centre).tolist())
    return float(sitk.GetArrayFromImage(image)[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].mean())


def test_grid_and_types(phantom: Phantom) -> None:
    for image in (*phantom.images.values(), phantom.label):
        assert image.GetSize() == (74, 74, 60)
        assert image.GetSpacing() == (1.953125, 1.953125, 3.27)
        assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert image.GetOrigin() == phantom.label.GetOrigin()
        assert min(abs(mm) for mm in image.GetOrigin()) > 50  # off zero: a lost origin shows
    assert list(phantom.images) == ["CT", "PET"]
    assert phantom.images["CT"].GetPixelID() == sitk.sitkInt16
    assert phantom.images["PET"].GetPixelID() == sitk.sitkFloat32
    assert phantom.label.GetPixelID() == sitk.sitkUInt8


def test_the_same_seed_gives_the_same_voxels(phantom: Phantom) -> None:
    again, other = thigh_phantom(0), thigh_phantom(1)
    for first, second, third in zip(arrays(phantom), arrays(again), arrays(other), strict=True):
        assert np.array_equal(first, second)
        assert not np.array_equal(first, third)


def test_stored_numbers_of_seed_0(phantom: Phantom) -> None:
    # A change of these is a change of the demo's case, and wants to be meant.
    ct, pet, tumour = arrays(phantom)
    assert np.count_nonzero(tumour) == pytest.approx(10042, abs=2)
    assert ct.mean() == pytest.approx(-223.485, abs=0.01)
    assert pet.mean(dtype=float) == pytest.approx(0.656264, abs=1e-4)
    assert ct[30, 37, 5:70:16] == pytest.approx([-202, 53, 6, 38, 52], abs=1)


@pytest.mark.parametrize("seed", [0, 3])
def test_tumour_is_one_piece_of_100_to_250_ml_in_the_middle(seed: int) -> None:
    label = thigh_phantom(seed).label
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.ConnectedComponent(label))
    assert shape.GetNumberOfLabels() == 1
    assert 100e3 < shape.GetPhysicalSize(1) < 250e3
    centre = label.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in label.GetSize()])
    assert np.linalg.norm(np.array(shape.GetCentroid(1)) - centre) < 6
    # Slightly lobulated: less round than an ellipsoid of its axes, yet no ragged thing.
    axes = np.array(shape.GetPrincipalMoments(1)) ** 0.5
    ellipsoid = 4 / 3 * np.pi * np.prod(axes * np.sqrt(5))
    assert 0.93 < shape.GetPhysicalSize(1) / ellipsoid < 0.999


def test_tumour_has_a_hot_rim_and_a_cold_core_of_lower_density(phantom: Phantom) -> None:
    ct, pet, tumour = arrays(phantom)
    deep = distance_inside(phantom.label)
    core = tumour & (pet < 2) & (deep > 12)
    rim = tumour & (deep > 5) & (pet > 6)
    assert 300 < np.count_nonzero(core) < 0.2 * np.count_nonzero(tumour)
    assert np.count_nonzero(rim) > 0.2 * np.count_nonzero(tumour)
    assert pet[core].min() > 1.2
    assert pet[core].mean() < 1.9
    assert 6.5 < pet[rim].mean() < 8.5
    assert pet.max() < 11
    assert 38 < ct[rim].mean() < 60
    assert ct[core].mean() < ct[rim].mean() - 15
    # A threshold on SUV finds the rim and misses the core: the label must hold it.
    hot = pet > 2.5
    assert 0.8 < 2 * np.count_nonzero(hot & tumour) / (hot.sum() + tumour.sum()) < 0.96


def test_tissues_have_the_values_of_a_thigh(phantom: Phantom) -> None:
    ct, pet, _ = arrays(phantom)
    far = distance_inside(phantom.label) < -15
    muscle, fat = far & (abs(ct - 57) < 30), far & (abs(ct + 104) < 30)
    assert np.median(ct[muscle]) == pytest.approx(57, abs=4)
    assert np.median(ct[fat]) == pytest.approx(-103, abs=5)
    assert 0.6 < np.median(pet[muscle]) < 0.8
    assert 0.2 < np.percentile(pet[fat], 25) < 0.35
    corner = ct[:, :12, :12]
    assert corner.mean() == pytest.approx(-1000, abs=3)
    assert 9 < corner.std() < 13
    assert pet[:, :12, :12].mean() < 0.06
    # Along z the noise is hardly correlated: neighbours differ by about sqrt(2) standard deviations.
    neighbours = muscle[1:] & muscle[:-1]
    assert np.std((ct[1:] - ct[:-1])[neighbours]) / np.sqrt(2) == pytest.approx(12, abs=2)
    shares = {"air": (ct < -500).mean(), "fat": fat.mean(), "muscle": muscle.mean(), "bone": (ct > 600).mean()}
    assert 0.15 < shares["air"] < 0.4
    assert shares["fat"] > 0.05
    assert shares["muscle"] > 0.3
    assert 0.01 < shares["bone"] < 0.05


def test_femur_has_marrow_and_lies_behind_and_inside_of_the_tumour(phantom: Phantom) -> None:
    # x to the patient's left: inwards in a right leg; y to the back.
    bone_x, bone_y = module.LEG_CENTRE + module.FEMUR_FROM_LEG - [0, 4]
    assert bone_x > 0
    assert bone_y > 20
    assert -90 < at(phantom, "CT", bone_x, bone_y, 0) < 60
    for dx, dy in ((10, 0), (-10, 0), (0, 10), (0, -10)):
        assert at(phantom, "CT", bone_x + dx, bone_y + dy, 0) > 500
    ct, *_ = arrays(phantom)
    assert (ct > 600).any(axis=(1, 2)).all()  # a shaft through every slice


def test_skin_faces_the_front_and_the_outer_side(phantom: Phantom) -> None:
    ct, *_ = arrays(phantom)
    air = (ct < -500).mean(axis=0)
    assert air[0].mean() > 0.95  # front
    assert air[-1].mean() < 0.1  # the leg goes on to the back
    assert air[37, 0] > 0.2
    assert air[37, -1] == 0


def test_blur_of_a_point_has_the_stated_width() -> None:
    point = np.zeros((25, 25, 25))
    point[12, 12, 12] = 1
    blurred = module._blur(point, module.PET_FWHM_MM)
    assert blurred.shape == (13, 13, 13)
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    for axis, spacing in enumerate(reversed(module.SPACING)):
        profile = blurred.sum(axis=tuple({0, 1, 2} - {axis}))
        offsets = (np.arange(13) - 6) * spacing
        assert (profile * offsets).sum() == pytest.approx(0, abs=1e-4)
        assert np.sqrt((profile * offsets**2).sum()) == pytest.approx(6 * SIGMA_PER_FWHM, rel=0.02)


@pytest.mark.parametrize("fwhm", [module.CT_NOISE_FWHM_MM, module.PET_FWHM_MM])
def test_noise_has_mean_0_and_deviation_1(fwhm: float) -> None:
    noise = module._noise(np.random.default_rng(5), np.zeros(3, int), fwhm)
    assert noise.shape == (60, 74, 74)
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(1, abs=0.03)


def test_a_larger_field_holds_the_same_phantom_at_the_same_place(phantom: Phantom) -> None:
    large = thigh_phantom(0, field_of_view_scale=2)
    assert large.label.GetSize() == (148, 148, 120)
    assert large.label.GetSpacing() == phantom.label.GetSpacing()
    first = large.label.TransformPhysicalPointToIndex(phantom.label.GetOrigin())
    assert first == (37, 37, 30)
    inner = tuple(slice(start, start + n) for start, n in zip(first[::-1], (60, 74, 74), strict=True))
    ct, pet, tumour = arrays(large)
    for whole, part in zip((ct, pet, tumour), arrays(phantom), strict=True):
        assert np.abs(whole[inner].astype(float) - part).max() <= 1e-3
    tumour[inner] = False
    assert not tumour.any()
    assert all((ct[end] > 600).any() for end in (0, -1))  # the leg goes on
    # Nothing is cut off where the drawn window ends: air on all four sides of the leg.
    body = (ct > -300).any(axis=0)
    assert not (body[0].any())
    assert not (body[-1].any())
    assert not (body[:, 0].any())
    assert not (body[:, -1].any())
    assert all(np.ptp(np.flatnonzero(body.any(axis=axis))) * 1.953 < 220 for axis in (0, 1))
    assert 0.5 < (ct < -500).mean() < 0.9


def test_a_smaller_field_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        thigh_phantom(0, field_of_view_scale=0.5)
