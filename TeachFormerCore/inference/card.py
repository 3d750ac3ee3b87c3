"""The model card (``model.json``): what a model is, needs and was measured to do; checked field by field."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..data.channels import MODALITIES, Channel
from ..errors import InputError

CARD_FILE = "model.json"
SCHEMA_VERSION = 1

Card = dict[str, Any]


def _numbers(value: object, count: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and (count is None or len(value) == count)
        and all(isinstance(item, int | float) and not isinstance(item, bool) and item > 0 for item in value)
    )


def _channel(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and value.get("modality") in MODALITIES
        and isinstance(value.get("normalisation"), dict)
        and isinstance(value.get("optional"), bool)
        and set(value) == {"name", "modality", "normalisation", "optional"}
    )


def _code(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(item, str) for item in value)


def _label(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("value"), int)
        and 0 < value["value"] < 256
        and isinstance(value.get("name"), str)
        and isinstance(value.get("color"), list)
        and len(value["color"]) == 3
        and all(isinstance(item, int) and 0 <= item <= 255 for item in value["color"])
        and (
            value.get("terminology") is None
            or (isinstance(value["terminology"], dict) and all(_code(code) for code in value["terminology"].values()))
        )
    )


def _hashes(value: object) -> bool:
    # File names stay inside the model folder: a card is input from outside.
    return (
        isinstance(value, dict)
        and "weights.safetensors" in value
        and all(
            isinstance(name, str)
            and ".." not in Path(name).parts
            and not Path(name).is_absolute()
            and isinstance(digest, str)
            and re.fullmatch(r"[0-9a-f]{64}", digest)
            for name, digest in value.items()
        )
    )


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


def _list_of(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(check(item) for item in value)


# Field -> (what it must be, in words, and as a check).
SCHEMA: dict[str, tuple[str, Callable[[object], bool]]] = {
    "schema_version": (f"{SCHEMA_VERSION}", lambda value: value == SCHEMA_VERSION),
    "name": (
        "a text of letters, digits, '-', '_' and '.'",
        lambda value: isinstance(value, str) and re.fullmatch(r"[\w.-]*\w", value) is not None,
    ),
    "version": ("a text", _is(str)),
    "description": ("a text", _is(str)),
    "network": (
        "an object with 'name' and 'arguments'",
        lambda value: (
            isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("arguments"), dict)
        ),
    ),
    "channels": ("a list of {name, modality, normalisation, optional}", _list_of(_channel)),
    "labels": ("a list of {value, name, color, terminology}", _list_of(_label)),
    "spacing": ("three positive numbers (x, y, z in mm)", lambda value: _numbers(value, 3)),
    "image_size": ("two or three positive numbers (z, y, x)", lambda value: _numbers(value)),
    "field_of_view_mm": ("null or three positive numbers (mm)", lambda value: value is None or _numbers(value, 3)),
    "needs_region": ("true or false", _is(bool)),
    "region_hint": ("a text", _is(str)),
    "files": ("an object of file names and their sha256, weights.safetensors among them", _hashes),
    "teachers": ("a list", _is(list)),
    "training": ("an object", _is(dict)),
    "accuracy": ("an object", _is(dict)),
    "seconds": ("an object", _is(dict)),
    "intended_use": ("a text", _is(str)),
}


def read_card_file(file: Path) -> Card:
    """Reads and checks a card.

    Raises:
        InputError: no such file, not JSON, or a field that is missing or not what it must be.
    """
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file.parent} is not a model folder: it has no {CARD_FILE}.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"The model card {file} could not be read as JSON ({error}).") from error
    check_card(card, file)
    return card


def check_card(card: object, file: Path) -> None:
    """Checks every field of a card.

    Raises:
        InputError: naming the first field that is wrong, and what it must be.
    """
    if not isinstance(card, dict):
        raise InputError(f"The model card {file} must hold a JSON object.")
    for name, (words, fits) in SCHEMA.items():
        if name not in card:
            raise InputError(f"The model card {file} lacks '{name}': it must be {words}.")
        if not fits(card[name]):
            raise InputError(f"The model card {file} cannot be used: '{name}' must be {words}.")
    names = [channel["name"].lower() for channel in card["channels"]]
    if len(set(names)) < len(names):
        raise InputError(f"The model card {file} cannot be used: two channels have the same name.")


def card_channels(card: Mapping[str, Any]) -> tuple[Channel, ...]:
    """The card's channels, in the network's order."""
    return tuple(Channel(**channel) for channel in card["channels"])
