"""Names, normalisations and backgrounds of channels: closed forms."""

import numpy as np
import pytest

from TeachFormerCore.data.channels import (
    MODALITIES,
    Channel,
    background_value,
    default_normalisation,
    modality_of,
    normalise,
)
from TeachFormerCore.errors import InputError


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("CT", "CT"),
        ("ct", "CT"),
        ("PET", "PET"),
        ("pt", "PET"),
        ("FDG-PET", "PET"),
        ("MR_T1", "MR"),
        ("T2w", "MR"),
        ("ADC", "MR"),
        ("FLAIR", "MR"),
        ("DWI", "MR"),
        ("T1ce", "MR"),
        ("T1_contrast", "MR"),
    ],
)
def test_modality_by_name(name, modality):
    assert modality_of(name) == modality


def test_ct_window():
    raw = np.array([-1024, -200, -75, 50, 300, 3000], np.int16)
    result = normalise(raw, default_normalisation("CT"))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [0, 0, 0.25, 0.5, 1, 1], rtol=1e-6)


def test_pet_scale():
    np.testing.assert_allclose(
        normalise(np.array([-0.1, 0, 2.5, 20, 35], np.float32), default_normalisation("PET")),
        [0, 0, 0.5, 4, 4],
        rtol=1e-6,
    )


def test_parameters_come_from_the_card():
    assert normalise(np.float32([0]), {"kind": "clip_and_scale", "low": -100, "high": 100})[0] == pytest.approx(0.5)
    assert normalise(np.float32([9]), {"kind": "scale_suv", "high": 8.0, "divisor": 2.0})[0] == pytest.approx(4)


def test_z_score_is_of_the_foreground_only():
    noise, tissue = np.full(5000, 3.0), np.tile([80.0, 120.0], 500)
    result = normalise(np.concatenate([noise, tissue]), {"kind": "z_score"})
    assert np.all(result[:5000] == 0)
    np.testing.assert_allclose(result[5000:5002], [-1, 1], rtol=1e-6)


def test_z_score_does_not_depend_on_how_much_air_there_is():
    tissue = np.random.default_rng(0).normal(500, 50, 4000)
    little, much = (normalise(np.concatenate([np.full(n, 5.0), tissue]), {"kind": "z_score"})[n:] for n in (100, 40000))
    np.testing.assert_allclose(little, much, rtol=1e-5)


def test_z_score_clips_a_spike_and_ignores_its_height():
    image = np.concatenate([np.tile([90.0, 110.0], 5000), [1e5]])
    result = normalise(image, {"kind": "z_score"})
    assert result[-1] == 5
    assert np.all(np.abs(result) <= 5)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0, -3.0])
def test_constant_image_becomes_zeros(value):
    assert not normalise(np.full((4, 5, 6), value, np.float32), {"kind": "z_score"}).any()


@pytest.mark.parametrize("modality", MODALITIES)
def test_normalised_background_is_exactly_zero(modality):
    rng = np.random.default_rng(1)
    image = np.concatenate([np.full(3, background_value(modality)), rng.uniform(1, 15, 500), [np.nan, np.inf, -np.inf]])
    result = normalise(image, default_normalisation(modality))
    assert np.all(result[[0, 1, 2, -3, -2, -1]] == 0)
    assert np.isfinite(result).all()
    assert result.any()


def test_the_raw_array_is_left_alone():
    raw = np.linspace(-1000, 1000, 50, dtype=np.float32)
    before = raw.copy()
    for modality in MODALITIES:
        normalise(raw, default_normalisation(modality))
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize(
    ("normalisation", "words"),
    [
        ({"kind": "minmax"}, "minmax"),
        ({}, "unknown"),
        ({"kind": "clip_and_scale", "low": 0}, "high"),
        ({"kind": "clip_and_scale", "low": 5, "high": 5}, "low < high"),
        ({"kind": "scale_suv", "high": 20, "divisor": 0}, "divisor"),
        ({"kind": "scale_suv", "high": "20", "divisor": 5}, "high"),
    ],
)
def test_wrong_normalisation_is_refused(normalisation, words):
    with pytest.raises(InputError, match=words):
        normalise(np.zeros(3, np.float32), normalisation)


def test_unknown_modality_is_refused():
    for function in (background_value, default_normalisation):
        with pytest.raises(InputError, match="US"):
            function("US")


def test_channel_reads_a_card_entry():
    entry = {"name": "MR_T1", "modality": "MR", "normalisation": {"kind": "z_score"}, "optional": True}
    assert Channel(**entry) == Channel("MR_T1", "MR", {"kind": "z_score"}, True)
    assert Channel("CT", "CT", {}).optional is False
