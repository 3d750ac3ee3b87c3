"""The way of an image to its mask: the same mask in space on every grid, with a network whose answer is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from TeachFormerCore.data.grid import Grid, resample
from TeachFormerCore.data.image import voxels
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.predictor import Predictor, normalised_entropy, unit_range
from TeachFormerCore.inference.region import parse_region

HALF_SUV = 0.4  # SUV 2 after the division by 5


def by_threshold(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A network that calls SUV > 2 tumour: logits, coarse, fine."""
    pet = image[:, 1:2]
    logits = torch.cat([torch.zeros_like(pet), 40 * (pet - HALF_SUV)], 1)
    return logits, torch.nn.functional.avg_pool3d(pet, 16), pet


@pytest.fixture
def predictor(tiny_model: Path) -> Predictor:
    made = Predictor(tiny_model, device="cpu", runtime="torch")
    made.runtime.network.forward_with_attention = by_threshold
    made.card["spacing"] = [2.0, 2.0, 2.0]
    return made


@pytest.fixture
def case() -> dict[str, sitk.Image]:
    """CT and PET on one grid: air around a body; an off-centre hot ellipsoid of SUV 4 with a smooth border."""
    size, spacing, origin = (48, 44, 30), (2.0, 2.0, 3.5), (-60.0, -30.0, 400.0)
    x, y, z = np.meshgrid(*(o + s * np.arange(n) for n, s, o in zip(size, spacing, origin, strict=True)), indexing="ij")
    distance = np.sqrt(((x + 20) / 18) ** 2 + ((y - 20) / 12) ** 2 + ((z - 440) / 24) ** 2)
    pet = 4 / (1 + np.exp(12 * (distance - 1)))
    ct = np.where(np.hypot(x + 12, y - 14) < 38, 50.0, -1000.0)
    images = {}
    for name, array in (("CT", ct), ("PET", pet)):
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0), np.float32))
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        images[name] = image
    return images


def on_axes(image: sitk.Image, axes: str) -> sitk.Image:
    return sitk.DICOMOrient(image, axes)


def rotated(image: sitk.Image, degrees: float, background: float) -> sitk.Image:
    """The image resampled onto a grid turned about an oblique axis, large enough for everything."""
    turn = sitk.VersorTransform((0.3, 0.5, 0.8), np.radians(degrees))
    direction = np.array(turn.GetMatrix()).reshape(3, 3)
    low, high = Grid.of(image).bounds()
    centre, size, spacing = (low + high) / 2, np.array((60, 60, 60)), 2.5
    origin = centre - direction @ ((size - 1) / 2 * spacing)
    grid = Grid(size=(60, 60, 60), spacing=(spacing,) * 3, origin=tuple(origin), direction=tuple(direction.ravel()))
    return resample(image, grid, background=background)


def dice_in_space(mask: sitk.Image, reference: sitk.Image) -> float:
    """Dice after bringing the mask back onto the reference's grid."""
    back = voxels(resample(sitk.Cast(mask, sitk.sitkFloat32), Grid.of(reference))) > 0.5
    truth = voxels(reference) > 0
    return 2 * (back & truth).sum() / (back.sum() + truth.sum())


def test_the_mask_is_where_the_tumour_is(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    prediction = predictor.run(case)
    truth = voxels(case["PET"]) > 2
    mask = voxels(prediction.label) > 0
    assert prediction.label.GetPixelID() == sitk.sitkUInt8
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.97
    assert prediction.notices == ()


def test_every_result_lies_on_the_references_exact_grid(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    prediction = predictor.run(case)
    for image in (
        prediction.label,
        prediction.attention_fine,
        prediction.attention_coarse,
        prediction.uncertainty,
        *prediction.probabilities,
    ):
        assert image.GetSize() == case["CT"].GetSize()
        assert image.GetSpacing() == case["CT"].GetSpacing()
        assert image.GetOrigin() == case["CT"].GetOrigin()
        assert image.GetDirection() == case["CT"].GetDirection()
    total = sum(voxels(image) for image in prediction.probabilities)
    np.testing.assert_allclose(total, 1, atol=1e-4)
    for image in (prediction.attention_fine, prediction.attention_coarse, prediction.uncertainty):
        assert 0 <= voxels(image).min() < voxels(image).max() <= 1


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SRA", "PIL", "AIR"])
def test_flipped_and_permuted_grids_give_the_same_mask(
    predictor: Predictor, case: dict[str, sitk.Image], axes: str
) -> None:
    plain = predictor.run(case).label
    turned = predictor.run({name: on_axes(image, axes) for name, image in case.items()}).label
    assert turned.GetSize() == on_axes(case["CT"], axes).GetSize()
    np.testing.assert_array_equal(voxels(on_axes(turned, "LPS")), voxels(plain))


@pytest.mark.parametrize("degrees", [15.0, 40.0, 90.0])
def test_oblique_grids_give_the_same_mask(predictor: Predictor, case: dict[str, sitk.Image], degrees: float) -> None:
    plain = predictor.run(case).label
    oblique = {"CT": rotated(case["CT"], degrees, -1000.0), "PET": rotated(case["PET"], degrees, 0.0)}
    # What is lost is the interpolation of the test's own rotated images at 2.5 mm.
    assert dice_in_space(predictor.run(oblique).label, plain) > 0.94


def test_channels_on_other_grids_are_resampled_and_said(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    plain = predictor.run(case).label
    coarse = Grid.of(case["PET"])
    coarse_pet = resample(
        case["PET"],
        Grid(size=(40, 36, 22), spacing=(3.0, 3.0, 5.0), origin=(-64.0, -36.0, 398.0), direction=coarse.direction),
    )
    prediction = predictor.run({"CT": case["CT"], "PET": on_axes(coarse_pet, "PIR")})
    assert dice_in_space(prediction.label, plain) > 0.93
    assert len(prediction.notices) == 1
    assert prediction.notices[0].startswith("PET (")
    assert "resampled onto the grid of CT" in prediction.notices[0]


def test_with_a_region_only_it_is_computed_on_the_whole_grid(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    plain = predictor.run(case)
    inside = predictor.run(case, region=parse_region("20,-20,440,26,20,34"))  # around the tumour
    assert inside.label.GetSize() == plain.label.GetSize()
    mask, whole = voxels(inside.label) > 0, voxels(plain.label) > 0
    assert 2 * (mask & whole).sum() / (mask.sum() + whole.sum()) > 0.98
    assert voxels(inside.probabilities[0]).max() == 1.0  # outside the region: background
    elsewhere = predictor.run(case, region=parse_region("50,20,440,8,8,20"))
    assert voxels(elsewhere.label).sum() == 0


def large(image: sitk.Image, background: float) -> sitk.Image:
    """The image within a field three times as large."""
    size = np.array(image.GetSize())
    padded = sitk.ConstantPad(image, size.tolist(), size.tolist(), background)
    return padded


def test_a_field_of_view_beyond_the_models_needs_a_region(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    whole_body = {"CT": large(case["CT"], -1000.0), "PET": large(case["PET"], 0.0)}
    with pytest.raises(InputError, match="place a box.*288 x 264 x 315 mm.*up to 200 x 200 x 200"):
        predictor.run(whole_body)
    with pytest.raises(InputError, match="The region covers"):
        predictor.run(whole_body, region=parse_region("0,0,440,140,50,50"))
    plain = predictor.run(case).label
    boxed = predictor.run(whole_body, region=parse_region("12,-14,452,48,44,52")).label
    assert dice_in_space(boxed, plain) > 0.99


def test_the_field_of_view_follows_the_axes_of_the_patient(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    predictor.card["field_of_view_mm"] = [100.0, 100.0, 110.0]  # the case covers 96 x 88 x 105 mm
    predictor.run({name: on_axes(image, "SRA") for name, image in case.items()})
    predictor.card["field_of_view_mm"] = [110.0, 100.0, 100.0]
    with pytest.raises(InputError, match="place a box"):
        predictor.run({name: on_axes(image, "SRA") for name, image in case.items()})


def test_progress_rises_to_one_and_an_exception_cancels(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    parts: list[float] = []
    predictor.run(case, on_progress=parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == 1.0

    def cancel(part: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor.run(case, on_progress=cancel)


def test_unknown_device_and_runtime_are_refused(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="no runtime 'magic'"):
        Predictor(tiny_model, runtime="magic")
    with pytest.raises(InputError, match="no device 'abacus'|does not work"):
        Predictor(tiny_model, device="abacus")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda case: {"CT": case["CT"]}, "PET"),
        (lambda case: case | {"MR": case["CT"]}, "no channel MR"),
        (lambda case: case | {"CT": case["PET"]}, "HU"),
        (lambda case: case | {"PET": case["PET"] * 5000}, "Bq/mL"),
        (lambda case: case | {"PET": case["PET"] * 0}, "constant|same value"),
        (lambda case: case | {"PET": moved(case["PET"])}, "overlap|share no space"),
    ],
)
def test_images_that_cannot_be_right_are_refused(
    predictor: Predictor, case: dict[str, sitk.Image], make: Callable, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        predictor.run(make(case))


def moved(image: sitk.Image) -> sitk.Image:
    away = sitk.Image(image)
    away.SetOrigin((5000.0, 0.0, 0.0))
    return away


def test_entropy_and_range_by_hand() -> None:
    np.testing.assert_allclose(
        normalised_entropy(np.array([[0.5, 1.0, 0.25], [0.5, 0.0, 0.75]])), [1, 0, 0.811278], atol=1e-6
    )
    np.testing.assert_allclose(unit_range(np.array([2.0, 3.0, 4.0])), [0, 0.5, 1])
    np.testing.assert_array_equal(unit_range(np.full(3, 7.0)), 0)


def test_a_box_that_cuts_the_tumour_or_the_image_is_said(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    """The tumour's half-axes of 18, 12 and 24 mm about RAS (20, -20, 440); the image begins at z = 398 mm."""
    assert predictor.run(case, region=parse_region("20,-20,440,24,18,30")).notices == ()
    (notice,) = predictor.run(case, region=parse_region("20,-20,440,24,18,15")).notices
    assert notice.startswith("What was segmented reaches the wall of the region's box")
    (notice,) = predictor.run(case, region=parse_region("20,-20,398.25,24,18,80")).notices
    assert notice == "Of the region's box, 50 % lies inside the image: the rest was not computed."


def test_a_pet_of_a_part_of_the_region_is_said(predictor: Predictor, case: dict[str, sitk.Image]) -> None:
    case["PET"] = case["PET"][:, :, 10:11]
    (notice,) = predictor.run(case).notices
    assert notice.endswith("It covers 3 % of what was computed: the model saw nothing in the rest.")
