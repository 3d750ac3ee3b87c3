"""A dataset on disk, read-only: nnU-Net's raw layout or a MONAI datalist JSON."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError


@dataclass(frozen=True, kw_only=True)
class Case:
    """One set of images of one patient: a file per channel, and a label file where there is one."""

    name: str
    patient: str
    images: dict[str, Path]
    label: Path | None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Channels and labels (name -> value, background included) of a dataset, and its cases sorted by name.

    ``images`` of a case hold every channel of ``channels``; whether the files exist is for ``data check`` to say.
    ``centres`` holds the centre of each patient as far as ``dataset.json`` says it without a pattern, ``stated_cases``
    how many cases it promises (``numTraining``, ``numTest``), ``regions`` the unions of labels that are scored instead
    of the labels (BraTS).
    """

    folder: Path
    name: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    licence: str | None
    reference: str | None
    cases: tuple[Case, ...]
    centre_pattern: str | None = None
    centres: dict[str, str] = field(default_factory=dict)
    stated_cases: int | None = None
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def patients(self) -> dict[str, str]:
        """Patient of each case name."""
        return {case.name: case.patient for case in self.cases}


STATED = {"Tr": "numTraining", "Ts": "numTest"}


def open_dataset(path: str | Path, *, split: str = "Tr", patient_pattern: str | None = None) -> Dataset:
    """Opens an nnU-Net raw folder (``dataset.json``, ``imagesTr``, ``labelsTr``) or a MONAI datalist JSON.

    Args:
        path: the folder, or the datalist's file.
        split: ``Tr`` or ``Ts`` (``imagesTs``, ``labelsTs``; in a datalist ``training`` or ``test``).
        patient_pattern: regular expression with one group, matched at the start of the case name, that is the patient;
            overrides ``patient_pattern`` of ``dataset.json``. Without either, ``patients`` of ``dataset.json`` (case ->
            patient) counts, and each case that is not in it is a patient.

    Raises:
        InputError: not a dataset, or a pattern that does not fit a case.
    """
    path = Path(path)
    description_file = path / "dataset.json" if path.is_dir() else path
    description = _read_description(description_file)
    pattern = compile_pattern(patient_pattern or description.get("patient_pattern"), "patient")
    try:
        channel_names = description.get("channel_names") or description.get("modality") or {}
        channels = tuple(str(channel_names[str(i)]) for i in range(len(channel_names)))
        regions = {str(name): tuple(map(int, values)) for name, values in description.get("regions", {}).items()}
        patients, centres = (_string_map(description.get(key, {})) for key in ("patients", "centres"))
        labels = {str(name): int(value) for name, value in _label_values(description.get("labels", {})).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{description_file} is not an nnU-Net description: 'channel_names' must be numbered from \"0\" and "
            "'labels' must map names to whole numbers ('patients' and 'centres', where given, names to names)."
        ) from error
    if len({channel.lower() for channel in channels}) < len(channels):
        raise InputError(f"{description_file} names two channels alike: {', '.join(channels)}.")
    if path.is_dir():
        files = _layout_cases(path, split, channels, str(description.get("file_ending", ".nii.gz")))
    else:
        files, channels = _datalist_cases(path, split, channels, description)
    if not files:
        raise InputError(
            f"{path} holds no cases for the split '{split}' (images{split}): is it an nnU-Net raw dataset?"
        )
    cases = tuple(
        Case(name=name, patient=_patient(name, pattern, patients), images=images, label=label)
        for name, (images, label) in sorted(files.items())
    )
    return Dataset(
        folder=path if path.is_dir() else path.parent,
        name=str(description.get("name") or (path.resolve().name if path.is_dir() else path.stem)),
        channels=channels,
        labels=labels,
        licence=description.get("licence") or description.get("license"),
        reference=description.get("reference"),
        cases=cases,
        centre_pattern=description.get("centre_pattern"),
        centres=centres,
        regions=regions,
        stated_cases=stated if isinstance(stated := description.get(STATED[split]), int) else None,
    )


def _read_description(file: Path) -> dict[str, Any]:
    try:
        description = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(
            f"{file} does not exist: give the folder of an nnU-Net raw dataset (dataset.json, imagesTr, labelsTr)."
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file} could not be read as JSON ({error}).") from error
    if not isinstance(description, dict):
        raise InputError(f"{file} must hold a JSON object with 'channel_names' and 'labels'.")
    return description


def _string_map(value: dict[str, Any]) -> dict[str, str]:
    return {str(key): str(name) for key, name in value.items()}


def _label_values(labels: dict[str, Any]) -> dict[str, Any]:
    """nnU-Net 2 maps names to values, nnU-Net 1 and MONAI values to names."""
    if labels and all(re.fullmatch(r"\d+", str(key)) for key in labels):
        return {str(name): int(value) for value, name in labels.items()}
    return labels


def compile_pattern(pattern: str | None, what: str) -> re.Pattern[str] | None:
    """The pattern that finds the patient, or the centre, at the start of a case name.

    Raises:
        InputError: not a regular expression with exactly one group.
    """
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise InputError(f"The {what} pattern '{pattern}' is not a regular expression ({error}).") from error
    if compiled.groups != 1:
        raise InputError(f"The {what} pattern '{pattern}' must have exactly one group, the {what}.")
    return compiled


def _patient(case: str, pattern: re.Pattern[str] | None, patients: dict[str, str]) -> str:
    if pattern is None:
        return patients.get(case, case)
    match = pattern.match(case)
    if match is None or not match.group(1):
        raise InputError(f"The patient pattern '{pattern.pattern}' does not fit the case '{case}'.")
    return match.group(1)


Files = dict[str, tuple[dict[str, Path], Path | None]]


def _layout_cases(folder: Path, split: str, channels: tuple[str, ...], ending: str) -> Files:
    images, labels = folder / f"images{split}", folder / f"labels{split}"
    if not images.is_dir():
        raise InputError(f"{folder} has no folder images{split}: is it an nnU-Net raw dataset?")
    if not channels:
        raise InputError(f"{folder / 'dataset.json'} names no channels: 'channel_names' must hold at least one.")
    # Not beginning with a dot: archives made on a Mac carry a "._" file beside each image.
    numbered = re.compile(r"([^.].*)_(\d{4})" + re.escape(ending))
    names = {match.group(1) for file in images.iterdir() if (match := numbered.fullmatch(file.name))}
    if labels.is_dir():
        names |= {
            file.name.removesuffix(ending)
            for file in labels.iterdir()
            if file.name.endswith(ending) and file.name[0] != "."
        }
    return {
        name: (
            {channel: images / f"{name}_{number:04d}{ending}" for number, channel in enumerate(channels)},
            labels / f"{name}{ending}" if labels.is_dir() else None,
        )
        for name in names
    }


def _datalist_cases(
    file: Path, split: str, channels: tuple[str, ...], description: dict[str, Any]
) -> tuple[Files, tuple[str, ...]]:
    entries = description.get("training" if split == "Tr" else "test") or []
    cases: Files = {}
    try:
        for entry in entries:
            entry = {"image": entry} if isinstance(entry, str | list) else entry
            images = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
            channels = channels or tuple(f"channel_{number}" for number in range(len(images)))
            paths = {channel: file.parent / image for channel, image in zip(channels, images, strict=True)}
            label = file.parent / entry["label"] if entry.get("label") else None
            # With several channels the files carry nnU-Net's channel number: the case is the name without it.
            name = re.sub(r"_\d{4}$", "", Path(images[0]).name.split(".")[0])
            if name in cases:
                raise InputError(f"{file} lists two cases with the name '{name}'.")
            cases[name] = (paths, label)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} is not a MONAI datalist: each entry of 'training' needs 'image' (one path per channel) "
            "and 'label'."
        ) from error
    return cases, channels
