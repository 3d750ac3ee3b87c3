"""The shipped student on the phantom: the same tumour whatever grid, field of view or box its images come with."""

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data.grid import Grid, resample
from TeachFormerCore.data.image import voxels
from TeachFormerCore.data.phantom import Phantom, thigh_phantom
from TeachFormerCore.errors import InputError
from TeachFormerCore.evaluation.overlap import dice
from TeachFormerCore.inference.predictor import Predictor
from TeachFormerCore.inference.region import Region

BACKGROUND = {"CT": -1000.0, "PET": 0.0}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(device="cpu")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return thigh_phantom()


def score(label: sitk.Image, phantom: Phantom) -> float:
    """Dice against the phantom's own label, on its grid."""
    back = voxels(resample(sitk.Cast(label, sitk.sitkFloat32), Grid.of(phantom.label))) > 0.5
    value = dice(back, voxels(phantom.label) > 0)
    assert value is not None
    return value


@pytest.fixture(scope="module")
def plain(predictor: Predictor, phantom: Phantom) -> sitk.Image:
    return predictor.run(phantom.images).label


def test_the_tumour_is_found(plain: sitk.Image, phantom: Phantom) -> None:
    assert score(plain, phantom) > 0.9


def test_a_permuted_and_flipped_copy_gives_the_same_mask(
    predictor: Predictor, phantom: Phantom, plain: sitk.Image
) -> None:
    turned = predictor.run({name: sitk.DICOMOrient(image, "SAR") for name, image in phantom.images.items()}).label
    np.testing.assert_array_equal(voxels(sitk.DICOMOrient(turned, "LPS")), voxels(plain))


def test_an_oblique_anisotropic_ct_with_a_coarse_pet(predictor: Predictor, phantom: Phantom) -> None:
    """CT on a grid turned by 25 degrees with 1.5 x 1.5 x 5 mm voxels; the PET upright, with voxels of 4 mm."""
    low, high = Grid.of(phantom.label).bounds()
    centre = (low + high) / 2
    direction = np.array(sitk.VersorTransform((0.2, 0.4, 0.9), np.radians(25)).GetMatrix()).reshape(3, 3)
    size, spacing = np.array((110, 110, 42)), np.array((1.5, 1.5, 5.0))
    oblique = Grid(
        size=tuple(size.tolist()),
        spacing=tuple(spacing.tolist()),
        origin=tuple(centre - direction @ ((size - 1) / 2 * spacing)),
        direction=tuple(direction.ravel()),
    )
    upright = Grid(size=(40, 40, 52), spacing=(4.0,) * 3, origin=tuple(low), direction=Grid.of(phantom.label).direction)
    prediction = predictor.run(
        {
            "CT": resample(phantom.images["CT"], oblique, background=BACKGROUND["CT"]),
            "PET": resample(phantom.images["PET"], upright, background=BACKGROUND["PET"]),
        }
    )
    assert Grid.of(prediction.label).same_as(oblique)
    assert len(prediction.notices) == 1
    assert score(prediction.label, phantom) > 0.85


def test_in_a_field_three_times_as_large(predictor: Predictor, phantom: Phantom, plain: sitk.Image) -> None:
    """Without a box it is refused in the card's words; with the box of the plain phantom, Dice is as before."""
    large = thigh_phantom(field_of_view_scale=3.0)
    with pytest.raises(InputError, match="cut about 5 cm around the tumour: place a box"):
        predictor.run(large.images)
    low, high = Grid.of(phantom.label).bounds()
    box = Region(centre=tuple((low + high) / 2), half_size=tuple((high - low) / 2 - 0.5))
    boxed = predictor.run(large.images, region=box).label
    assert boxed.GetSize() == large.label.GetSize()
    assert score(boxed, phantom) == pytest.approx(score(plain, phantom), abs=0.02)
