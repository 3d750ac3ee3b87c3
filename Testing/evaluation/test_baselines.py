"""The baselines' masks, and what they score on the dataset that the documents quote."""

import math

import numpy as np
import pytest

from TeachFormerCore.evaluation.baselines import baseline_masks, centred_ellipsoid, predict_nothing, suv_above
from TeachFormerCore.evaluation.overlap import dice


def test_the_ellipsoid_is_centred_and_fills_its_part_of_the_image():
    mask = centred_ellipsoid((60, 40, 80))
    assert mask.mean() == pytest.approx(math.pi / 6 * 0.6**3, rel=0.01)
    for axis, size in enumerate(mask.shape):
        assert np.array_equal(mask, np.flip(mask, axis))
        others = tuple(i for i in range(3) if i != axis)
        assert mask.any(axis=others).sum() == pytest.approx(0.6 * size, abs=1)


def test_the_ellipsoid_of_a_single_slice():
    mask = centred_ellipsoid((1, 50, 50))
    assert mask.mean() == pytest.approx(math.pi / 4 * 0.6**2, rel=0.02)


def test_nothing_and_suv():
    assert not predict_nothing((2, 3, 4)).any()
    assert suv_above(np.array([0, 2.4, 2.5, 2.6])).tolist() == [False, False, False, True]


def test_masks_by_name():
    assert list(baseline_masks((4, 4, 4), None)) == ["predict_nothing", "centred_ellipsoid"]
    masks = baseline_masks((4, 4, 4), np.full((4, 4, 4), 3.0))
    assert list(masks) == ["predict_nothing", "centred_ellipsoid", "suv_2_5"]
    assert masks["suv_2_5"].all()


def test_scores_on_the_sarcomas(sts):
    import SimpleITK as sitk

    found: dict[str, list[float]] = {}
    for file in sorted((sts / "labelsTr").glob("*.nii.gz")):
        reference = sitk.GetArrayFromImage(sitk.ReadImage(str(file))) > 0
        pet_file = sts / "imagesTr" / file.name.replace(".nii.gz", "_0001.nii.gz")
        pet = sitk.GetArrayFromImage(sitk.ReadImage(str(pet_file)))
        for name, mask in baseline_masks(reference.shape, pet).items():
            found.setdefault(name, []).append(dice(mask, reference))
    assert len(found["suv_2_5"]) == 39
    means = {name: np.mean(values) for name, values in found.items()}
    assert means == pytest.approx({"predict_nothing": 0, "centred_ellipsoid": 0.6451, "suv_2_5": 0.6178}, abs=2e-4)
