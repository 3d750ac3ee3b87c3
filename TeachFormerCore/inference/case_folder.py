"""A case as a folder: images or DICOM series named by channel, or DICOM series that say their modality."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from ..data.dicom import visible_files
from ..data.dicom_lengths import dicom_fault
from ..data.image import image_ending
from ..errors import InputError
from .card import card_channels
from .inputs import channel_named

MODALITY = "0008|0060"
PROBED = 20  # files of a folder that are asked for their modality before it counts as none with a series


def folder_pairs(folder: Path, card: Mapping[str, Any]) -> tuple[str, ...]:
    """``NAME=path`` of every image of a case.

    Files and subfolders named after a channel of the model, or its modality, come first (``CT.nii.gz``, ``PET/``).
    What is missing is looked for in the other subfolders, and in the folder itself, by the modality of their DICOM
    series. Anything else is left alone.

    Raises:
        InputError: the folder cannot be read, or two of its entries are one channel's.
    """
    found: dict[str, Path] = {}
    others: list[Path] = []
    try:
        entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} could not be read ({error.strerror}): check its permissions.") from error
    for path in entries:
        ending = "" if path.is_dir() else image_ending(path)
        # A file without such an ending is not looked at, whatever it is called.
        name = _channel(path.name[: len(path.name) - len(ending)], card) if path.is_dir() or ending else None
        if name:
            _take(found, name, path, folder)
        elif path.is_dir():
            others.append(path)
    named = set(found)
    for path in [*others, folder]:
        name = _channel(modality, card) if (modality := _modality(path)) else None
        if name and name not in named:
            _take(found, name, path, folder)
    return tuple(f"{name}={path}" for name, path in found.items())


def _take(found: dict[str, Path], name: str, path: Path, folder: Path) -> None:
    if name in found:
        raise InputError(f"{folder} holds two images for {name}, {found[name].name} and {path.name}: leave one.")
    found[name] = path


def _channel(name: str, card: Mapping[str, Any]) -> str | None:
    try:
        return channel_named(name, card_channels(card), card).name
    except InputError:
        return None


def _modality(folder: Path) -> str | None:
    """What the first DICOM file of a folder says it is: CT, PT, MR, ..."""
    for path in visible_files(folder)[:PROBED]:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM" or dicom_fault(path):
                continue
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
            return reader.GetMetaData(MODALITY).strip()
        except RuntimeError:
            continue
    return None
