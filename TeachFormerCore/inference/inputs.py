"""The images of one case: from ``NAME=path`` to checked channels in the units the model needs."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import SimpleITK as sitk

from ..data.channels import Channel
from ..data.grid import Grid
from ..data.image import check_exists, is_dicom_file, read_finite_image
from ..data.suv import read_suv
from ..data.units import check_channel, mark_as_suv
from ..errors import InputError
from .card import card_channels
from .region import as_percent, share_covered

PET_UNITS = ("suv", "bqml")
MODALITY_ALIASES = {"CT": "CT", "PET": "PET", "PT": "PET", "MR": "MR", "MRI": "MR"}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The images of one case.

    Attributes:
        images: by channel name, in the card's order, PET in SUV; the first one is the reference.
        pet_units: how SUV was obtained; None where there is no PET.
        reference: path of the reference image.
    """

    images: dict[str, sitk.Image]
    pet_units: str | None
    reference: str


def match_inputs(pairs: Sequence[str], card: Mapping[str, Any]) -> dict[str, Path]:
    """The path of each channel, in the card's order, from pairs such as ``CT=ct.nii.gz``; reads no file.

    A name is a channel's, in any case, or the modality of one channel only (``MR=`` for ``MR_T1``).

    Raises:
        InputError: a malformed pair, a name that is unknown, ambiguous or given twice, a channel missing.
    """
    channels = card_channels(card)
    paths: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = (part.strip() for part in pair.partition("="))
        if not (name and equals and path):
            raise InputError(
                f"'{pair}' is not of the form NAME=FILE, e.g. {channels[0].name}=image.nii.gz. {_needs(card)}"
            )
        channel = channel_named(name, channels, card)
        if channel.name in paths:
            raise InputError(
                f"The channel {channel.name} is given twice, as {paths[channel.name]} and {path}: give one file. "
                f"{_needs(card)}"
            )
        paths[channel.name] = Path(path).expanduser() if path.startswith("~/") else Path(path)
    _check_complete(paths, channels, card)
    return {channel.name: paths[channel.name] for channel in channels if channel.name in paths}


def read_inputs(
    pairs: Sequence[str], card: Mapping[str, Any], pet_units: str = "suv", suv_factor: float | None = None
) -> Inputs:
    """Reads and checks the images of one case.

    Args:
        pairs: ``NAME=path`` each; a path is a file or the folder of one DICOM series.
        card: the model's card.
        pet_units: what the values of a PET are that is no DICOM series: ``suv``, or ``bqml`` with ``suv_factor``.
            A PET DICOM series is converted by its own header, unless ``bqml`` and a factor are given for it.
        suv_factor: SUV per Bq/mL.

    Raises:
        InputError: see `match_inputs` and `check_inputs`; a file that cannot be read, PET that cannot become SUV.
        MissingDependencyError: a PET DICOM series, and pydicom is not installed.
    """
    if pet_units not in PET_UNITS:
        raise InputError(f"The PET units '{pet_units}' are unknown: give one of {', '.join(PET_UNITS)}.")
    if suv_factor is not None and pet_units != "bqml":
        raise InputError("--suv-factor converts Bq/mL to SUV: give it together with --pet-units bqml.")
    if suv_factor is not None and not 0 < suv_factor < float("inf"):
        raise InputError(f"--suv-factor must be a number above 0 (SUV per Bq/mL), not {suv_factor:g}.")
    paths = match_inputs(pairs, card)
    single_slice = len(card["image_size"]) == 2

    def read(channel: Channel) -> tuple[sitk.Image, str | None]:
        if channel.modality == "PET":
            return _read_pet(paths[channel.name], pet_units, suv_factor, single_slice=single_slice)
        return read_finite_image(paths[channel.name], single_slice=single_slice), None

    present = [channel for channel in card_channels(card) if channel.name in paths]
    with ThreadPoolExecutor() as pool:  # decompression does not hold Python's lock
        read_images = list(pool.map(read, present))
    images = {channel.name: image for channel, (image, _how) in zip(present, read_images, strict=True)}
    said = dict.fromkeys(how for _image, how in read_images if how)
    check_inputs(images, card, sources={name: str(path) for name, path in paths.items()})
    return Inputs(images=images, pet_units="; ".join(said) or None, reference=str(next(iter(paths.values()))))


def check_inputs(
    images: Mapping[str, sitk.Image], card: Mapping[str, Any], *, sources: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuses images that the model cannot work on.

    The reference is the first channel of the card that is there.

    Args:
        sources: what the user calls each image, e.g. its path.

    Raises:
        InputError: an unknown or missing channel, an image that is not a 3D scalar volume, values that cannot be the
            channel's (`check_channel`), an image that shares no space with the reference.
    """
    channels = card_channels(card)
    unknown = [name for name in images if name not in {channel.name for channel in channels}]
    if unknown:
        raise InputError(f"The model has no channel {_listed(unknown)}. {_needs(card)}")
    _check_complete(images, channels, card)
    present = [channel for channel in channels if channel.name in images]
    for channel in present:
        image, source = images[channel.name], sources.get(channel.name, "given")
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise InputError(
                f"The {channel.name} image {source} is not a 3D volume with one value per voxel: give one."
            )
        check_channel(image, channel, source)
    reference = present[0].name
    grid = Grid.of(images[reference])
    for channel in present[1:]:
        if not grid.overlaps(Grid.of(images[channel.name])):
            first, second = (f"{name} image {sources.get(name, 'given')}" for name in (reference, channel.name))
            raise InputError(
                f"The {first} and the {second} share no space: their positions in millimetres do not overlap. "
                "Check that they are of one patient and one examination, or register them first."
            )


def input_notices(
    images: Mapping[str, sitk.Image], card: Mapping[str, Any], *, computed: Grid | None = None
) -> list[str]:
    """What a user should know of images that `check_inputs` has accepted.

    What is resampled, what it does not cover of the part that is computed, and which channel is empty.

    Args:
        computed: that part; the whole reference unless given.
    """
    channels = card_channels(card)
    present = [channel.name for channel in channels if channel.name in images]
    reference = Grid.of(images[present[0]])

    def resampled(name: str) -> str:
        grid = Grid.of(images[name])
        said = f"{name} ({grid.describe()}) was resampled onto the grid of {present[0]} ({reference.describe()})."
        covered = as_percent(share_covered(computed or reference, by=grid))
        return (
            f"{said} It covers {covered} of what was computed: the model saw nothing in the rest." if covered else said
        )

    return [resampled(name) for name in present[1:] if not Grid.of(images[name]).same_as(reference)] + [
        f"{channel.name} was not given: the model saw an empty image in its place."
        for channel in channels
        if channel.name not in images
    ]


def _read_pet(path: Path, pet_units: str, suv_factor: float | None, *, single_slice: bool) -> tuple[sitk.Image, str]:
    """A PET in SUV and how it became so; the header of a DICOM series tells more than ``pet_units``."""
    check_exists(path)
    if is_dicom_file(path):
        raise InputError(f"{path} is a single DICOM file: give the folder that holds all slices of the PET series.")
    if path.is_dir() and suv_factor is None:
        image, how = read_suv(path)
    elif pet_units == "suv":
        return read_finite_image(path, single_slice=single_slice), "as given (SUV)"
    elif suv_factor is None:
        raise InputError(
            f"{path} cannot be converted from Bq/mL, since such a file carries neither weight nor dose: give the "
            "folder of its DICOM series instead, or the factor (SUV per Bq/mL) as --suv-factor."
        )
    else:
        activity = read_finite_image(path, single_slice=single_slice)
        image = sitk.Cast(activity, sitk.sitkFloat32) * suv_factor
        how = f"from Bq/mL, with the given factor of {suv_factor:g} SUV per Bq/mL"
    mark_as_suv(image)
    return image, how


def channel_named(name: str, channels: Sequence[Channel], card: Mapping[str, Any]) -> Channel:
    """The channel of a name, in any case, or the only one of that modality.

    Raises:
        InputError: there is none, or several.
    """
    for channel in channels:
        if channel.name.lower() == name.lower():
            return channel
    modality = MODALITY_ALIASES.get(name.upper())
    fitting = [channel for channel in channels if channel.modality == modality]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = _listed([channel.name for channel in fitting])
        raise InputError(f"'{name}' could be any of {names}: use the channel's name. {_needs(card)}")
    raise InputError(f"The model has no channel '{name}'. {_needs(card)}")


def _check_complete(given: Mapping[str, object], channels: Sequence[Channel], card: Mapping[str, Any]) -> None:
    missing = [channel.name for channel in channels if channel.name not in given and not channel.optional]
    if missing:
        raise InputError(f"No image is given for {_listed(missing)}. {_needs(card)}")
    if not given:
        raise InputError(f"No image is given. {_needs(card)}")


def _needs(card: Mapping[str, Any]) -> str:
    """The sentence that ends every error about channels."""
    channels = card_channels(card)
    needed = [channel.name for channel in channels if not channel.optional]
    optional = [channel.name for channel in channels if channel.optional]
    words = [f"needs {_listed(needed)}"] if needed else []
    words += [f"can use {_listed(optional)}"] if optional else []
    return f"The model {card['name']} {' and '.join(words)}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
