"""The model card (``model.json``): what a model is, needs and was measured to do; checked field by field."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np

from ..data.channels import MODALITIES, Channel, normalise
from ..errors import InputError

CARD_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
SCHEMA_VERSION = 1
CARD_BYTES = 4 * 2**20
# Numbers in a card describe anatomy and networks; a larger one would only make a network that fills the memory.
LARGEST_NUMBER = 10_000
# What a model folder may hold beside its card: data only, nothing that is executed or unpickled when it is read.
FILE_ENDINGS = (".safetensors", ".onnx", ".xml", ".bin", ".json")

Card = dict[str, Any]
Check = Callable[[Any], bool]
Schema = Mapping[str, tuple[str, Check]]


def _number(value: object, *, low: float = 0, high: float = math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _whole(value: object, *, low: int = 0, high: int = LARGEST_NUMBER) -> bool:
    return isinstance(value, int) and _number(value, low=low, high=high)


def _millimetres(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) == 3 and all(_number(mm, low=1e-3, high=LARGEST_NUMBER) for mm in value)
    )


def _sizes(value: object) -> bool:
    return isinstance(value, list) and len(value) in (2, 3) and all(_whole(n, low=1) for n in value)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= 100 and value.isprintable()


def _object(value: object) -> bool:
    return isinstance(value, dict)


def _boolean(value: object) -> bool:
    return isinstance(value, bool)


def _list_of_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_whole(item, high=255) for item in value)


def _code(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_name(item) for item in value)


def _terminology(value: object) -> bool:
    return value is None or (
        isinstance(value, dict) and {"category", "type"} <= set(value) and all(map(_code, value.values()))
    )


def _modest(value: object) -> bool:
    """Whether every number inside is small enough to build a network with."""
    if isinstance(value, dict | list):
        return all(map(_modest, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int | float) or abs(value) <= LARGEST_NUMBER


def _dice(value: object) -> bool:
    return value is None or _number(value, high=1)


def _accuracy(value: object) -> bool:
    subsets = value.get("subsets", {}) if isinstance(value, dict) else None
    return (
        isinstance(value, dict)
        and _dice(value.get("dice"))
        and isinstance(subsets, dict)
        and all(map(_dice, subsets.values()))
    )


def _normalisation(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str) or not _modest(value):
        return False
    try:
        normalise(np.zeros(1), value)
    except InputError:
        return False
    return True


def is_safe_name(name: object) -> bool:
    """Whether a file name, with ``/`` between its parts, stays inside the folder it is in, on every platform."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 200
        and name.isprintable()
        and not re.search(r'[\\:*?"<>|]', name)
        and not name.startswith("/")
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )


def _files(value: object) -> bool:
    return (
        isinstance(value, dict)
        and WEIGHTS_FILE in value
        and all(
            is_safe_name(name)
            and name != CARD_FILE
            and PurePosixPath(name).suffix in FILE_ENDINGS
            and isinstance(digest, str)
            and re.fullmatch(r"[0-9a-f]{64}", digest)
            for name, digest in value.items()
        )
    )


# Field -> (what it must be, in words, and as a check).
SCHEMA: Schema = {
    "schema_version": (f"{SCHEMA_VERSION}", lambda value: value == SCHEMA_VERSION),
    "name": (
        "a text of at most 100 letters, digits, '-', '_' and '.'",
        lambda value: isinstance(value, str) and re.fullmatch(r"\w([\w.-]{0,98}\w)?", value) is not None,
    ),
    "version": ("a text", _text),
    "description": ("a text", _text),
    "network": ("an object with 'name' and 'arguments'", _object),
    "channels": ("a list of {name, modality, normalisation, optional}", _list_of_objects),
    "labels": ("a list of {value, name, color, terminology}", _list_of_objects),
    "spacing": ("three positive numbers (x, y, z in mm)", _millimetres),
    "image_size": ("two or three positive whole numbers (z, y, x)", _sizes),
    "field_of_view_mm": ("null or three positive numbers (mm)", lambda value: value is None or _millimetres(value)),
    "needs_region": ("true or false", _boolean),
    "region_hint": ("a text", _text),
    "files": (
        f"an object of file names inside the folder ({', '.join(FILE_ENDINGS)}) and their sha256, {WEIGHTS_FILE} "
        "among them",
        _files,
    ),
    "teachers": ("a list", lambda value: isinstance(value, list)),
    "training": ("an object", _object),
    "accuracy": (
        "an object, its 'dice', if any, 0..1 or null, its 'subsets', if any, an object of such by channels",
        _accuracy,
    ),
    "seconds": (f"an object without numbers above {LARGEST_NUMBER}", lambda value: _object(value) and _modest(value)),
    "intended_use": ("a text", _text),
}
NETWORK: Schema = {
    "name": ("a text", _text),
    "arguments": (f"an object without numbers above {LARGEST_NUMBER}", lambda value: _object(value) and _modest(value)),
}
CHANNEL: Schema = {
    "name": ("a text", _name),
    "modality": (f"one of {', '.join(MODALITIES)}", lambda value: value in MODALITIES),
    "normalisation": ("an object with a known 'kind' and its parameters", _normalisation),
    "optional": ("true or false", _boolean),
}
LABEL: Schema = {
    "value": ("the label's number, 1 for the first one in the list", _whole),
    "name": ("a text", _name),
    "color": ("three whole numbers 0..255 (red, green, blue)", _colour),
    "terminology": (
        "{category: [scheme, code, meaning], type: [scheme, code, meaning]}, or null where no code is known",
        _terminology,
    ),
}


def read_card_file(file: Path) -> Card:
    """Reads and checks a card.

    Raises:
        InputError: no such file, not JSON, or a field that is missing or not what it must be.
    """
    try:
        with file.open("rb") as stream:
            return parse_card(stream.read(CARD_BYTES + 1), file)
    except FileNotFoundError as error:
        raise InputError(f"{file.parent} is not a model folder: it has no {CARD_FILE}.") from error
    except OSError as error:
        raise InputError(f"The model card {file} could not be read ({error}).") from error


def parse_card(content: bytes, file: Path) -> Card:
    """The checked card of a file's content.

    Raises:
        InputError: too large, not JSON, or a field that is missing or not what it must be.
    """
    if len(content) > CARD_BYTES:
        raise InputError(f"The model card {file} is larger than {CARD_BYTES // 2**20} MiB: it is none.")
    try:
        card = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The model card {file} could not be read as JSON ({error}).") from error
    check_card(card, file)
    return card  # type: ignore[no-any-return]


def check_card(card: object, file: Path) -> None:
    """Checks every field of a card.

    Raises:
        InputError: naming the first field that is wrong, e.g. ``channels[1].modality``, and what it must be.
    """
    if not isinstance(card, dict):
        raise InputError(f"The model card {file} must hold a JSON object.")
    for place, owner, schema in _parts(card, file):
        for name, (words, fits) in schema.items():
            if name not in owner:
                raise InputError(f"The model card {file} lacks '{place}{name}': it must be {words}.")
            if not fits(owner[name]):
                raise InputError(f"The model card {file} cannot be used: '{place}{name}' must be {words}.")
    for name in ("channels", "labels"):
        if len({entry["name"].lower() for entry in card[name]}) < len(card[name]):
            raise InputError(f"The model card {file} cannot be used: two {name} have the same name.")
    if card["needs_region"] and card["field_of_view_mm"] is None:
        raise InputError(
            f"The model card {file} cannot be used: with 'needs_region', 'field_of_view_mm' must say up to what size "
            "an image needs none."
        )
    # The mask holds the number of the network's class, which is the label's place in the list.
    for number, label in enumerate(card["labels"], start=1):
        if label["value"] != number:
            raise InputError(
                f"The model card {file} cannot be used: 'labels[{number - 1}].value' must be {number}, the number of "
                "the network's class."
            )


def card_channels(card: Mapping[str, Any]) -> tuple[Channel, ...]:
    """The card's channels, in the network's order."""
    return tuple(Channel(**channel) for channel in card["channels"])


def _parts(card: Card, file: Path) -> Iterator[tuple[str, dict[str, Any], Schema]]:
    """The objects of a card with the place of each; what holds them comes first and has been checked by then."""
    yield "", card, SCHEMA
    yield "network.", card["network"], NETWORK
    for name, schema in (("channels", CHANNEL), ("labels", LABEL)):
        for number, entry in enumerate(card[name]):
            yield f"{name}[{number}].", entry, schema
    for number, channel in enumerate(card["channels"]):
        if unknown := set(channel) - set(CHANNEL):
            raise InputError(
                f"The model card {file} cannot be used: 'channels[{number}]' has an unknown {min(unknown)!r}."
            )


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")
