"""What a channel holds (CT, PET or MR) and how its values become a network's input.

The one rule: **the normalised background is 0 in every channel.** Air in CT, no activity in PET, everything outside the
foreground in MR: so padding, of whatever channel, is 0 everywhere, and a voxel that an image does not cover looks like
one outside the body.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

MODALITIES = ("CT", "PET", "MR")

# The z-score's foreground: voxels above this part of the image's 99th percentile. Outside the body an MR holds a noise
# floor of a few per cent of the tissue's signal, with no physical meaning; counted in, mean and standard deviation
# would tell how much air the crop has. Not of the maximum, which vessels and spikes make random.
FOREGROUND_OF_PERCENTILE_99 = 0.1
Z_SCORE_LIMIT = 5.0


@dataclass(frozen=True)
class Channel:
    """One input of a network; ``Channel(**entry)`` reads an entry of a model card's ``channels``.

    Attributes:
        name: as in ``channel_names`` of the dataset, e.g. ``MR_T1``.
        modality: ``CT``, ``PET`` or ``MR``.
        normalisation: ``kind`` and its parameters, see `normalise`.
        optional: whether the network works without it (the channel is then 0 everywhere).
    """

    name: str
    modality: str
    normalisation: dict[str, Any]
    optional: bool = False


def modality_of(channel_name: str) -> str:
    """``CT`` and ``PET`` (or ``PT``, ``SUV``) by a word of the name (``FDG-PET``); every other name is an ``MR``."""
    words = re.split(r"[^a-z0-9]+", channel_name.lower())
    for word in words:
        if word == "ct":
            return "CT"
        if word in ("pet", "pt", "suv"):
            return "PET"
    return "MR"


def default_normalisation(modality: str) -> dict[str, Any]:
    """The normalisation a new model's card gets for a modality.

    CT: the soft-tissue window of -200..300 HU to 0..1; PET: SUV up to 20, divided by 5, so that liver (about 2.5) is
    0.5 and a hot tumour stays distinct; MR, whose unit is arbitrary: z-score of the image's own foreground.
    """
    defaults: dict[str, dict[str, Any]] = {
        "CT": {"kind": "clip_and_scale", "low": -200.0, "high": 300.0},
        "PET": {"kind": "scale_suv", "high": 20.0, "divisor": 5.0},
        "MR": {"kind": "z_score"},
    }
    return defaults[_known(modality)]


def background_value(modality: str) -> float:
    """The raw value outside the field of view: air in CT (-1024 HU), 0 in PET and MR."""
    return {"CT": -1024.0, "PET": 0.0, "MR": 0.0}[_known(modality)]


def normalise(array: np.ndarray, normalisation: dict[str, Any]) -> np.ndarray:
    """The network's input of raw values (HU, SUV or MR signal), any shape, as a new float32 array.

    - ``clip_and_scale`` (``low``, ``high``): clipped, then ``(v - low) / (high - low)``: 0..1.
    - ``scale_suv`` (``high``, ``divisor``): clipped to 0..``high``, divided by ``divisor``.
    - ``z_score``: ``(v - mean) / sd`` over the foreground, clipped to +-5; exactly 0 elsewhere, and everywhere in a
      constant or empty image.

    Voxels that are not finite count as background: 0.

    Raises:
        InputError: an unknown kind, or a parameter missing or out of range.
    """
    kind = normalisation.get("kind")
    if kind not in _KINDS:
        raise InputError(
            f"The normalisation '{kind}' is unknown: model.json must give one of {', '.join(sorted(_KINDS))}."
        )
    array = np.asarray(array, dtype=np.float32)
    finite = np.isfinite(array)
    if finite.all():
        return _KINDS[kind](array, normalisation)
    return np.where(finite, _KINDS[kind](np.where(finite, array, np.float32(0)), normalisation), np.float32(0))


def _clip_and_scale(array: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    low, high = _number(parameters, "low"), _number(parameters, "high")
    if not low < high:
        raise InputError(f"The normalisation 'clip_and_scale' needs low < high, not {low:g} and {high:g}.")
    result = np.clip(array, low, high)
    result -= low
    result /= high - low
    return result


def _scale_suv(array: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    high, divisor = _number(parameters, "high"), _number(parameters, "divisor")
    if not (high > 0 and divisor > 0):
        raise InputError(f"The normalisation 'scale_suv' needs high and divisor above 0, not {high:g} and {divisor:g}.")
    result = np.clip(array, 0, high)
    result /= divisor
    return result


def _z_score(array: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    result = np.zeros_like(array)
    if array.size == 0:
        return result
    foreground = array > FOREGROUND_OF_PERCENTILE_99 * np.percentile(array, 99)
    values = array[foreground]
    # In double precision: the sum over millions of float32 voxels would lose the digits the deviation is made of.
    mean = values.mean(dtype=np.float64) if values.size else 0.0
    deviation = values.std(dtype=np.float64) if values.size else 0.0
    # Rounding leaves a constant image with a deviation of some 1e-8 of its mean, which must not be divided by.
    if deviation > 1e-6 * abs(mean):
        result[foreground] = np.clip((values - mean) / deviation, -Z_SCORE_LIMIT, Z_SCORE_LIMIT)
    return result


_KINDS: dict[str, Callable[[np.ndarray, dict[str, Any]], np.ndarray]] = {
    "clip_and_scale": _clip_and_scale,
    "scale_suv": _scale_suv,
    "z_score": _z_score,
}


def _number(parameters: dict[str, Any], name: str) -> float:
    value = parameters.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InputError(f"The normalisation '{parameters['kind']}' needs the number '{name}' in model.json.")
    return float(value)


def _known(modality: str) -> str:
    if modality not in MODALITIES:
        raise InputError(f"The modality '{modality}' is unknown: model.json must give one of {', '.join(MODALITIES)}.")
    return modality
