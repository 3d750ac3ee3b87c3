"""What a converter says of an archive: its cases, how one of them is read, and what the dataset will be called."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import SimpleITK as sitk

from ...errors import InputError

Split = Literal["Tr", "Ts"]


@dataclass(frozen=True, kw_only=True)
class TargetCase:
    """One case as it is written: an image a channel, all on one grid, and the label on the same grid.

    ``notes`` are for the report: what a person who uses the case should know.
    """

    name: str
    images: Sequence[sitk.Image]
    label: sitk.Image | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourceCase:
    """One case of an archive.

    Attributes:
        name: of the case; the names of its target cases begin with it.
        patient, centre: whose it is and where from; None where the archive does not say.
        split: ``Tr`` or ``Ts``.
        files: every file and DICOM folder it is read from.
        read: reads them; called in a thread of its own.
    """

    name: str
    patient: str | None = None
    centre: str | None = None
    split: Split = "Tr"
    files: Sequence[Path]
    read: Callable[[], Iterable[TargetCase]]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A whole archive and the description of the dataset made of it.

    Attributes:
        challenge: the converter's name.
        source: the folder, which is only read.
        options: what the conversion depends on, as JSON; a conversion with others is another one.
        channels: in order.
        labels: name -> value, background included; None where they are whatever the cases hold.
        licence, reference: for ``dataset.json``.
        patient_pattern, centre_pattern: see `dataset.open_dataset`; where None, the cases' own are written.
        cases: sorted by name.
        left_out: sentences about what is in the archive and not among the cases.
        description: further keys of ``dataset.json``.
    """

    challenge: str
    source: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    channels: Sequence[str]
    labels: Mapping[str, int] | None
    licence: str
    reference: str
    patient_pattern: str | None = None
    centre_pattern: str | None = None
    cases: Sequence[SourceCase]
    left_out: Sequence[str] = ()
    description: Mapping[str, Any] = field(default_factory=dict)


def archive_folder(source: str | Path) -> Path:
    """The archive's folder, unpacked.

    Raises:
        InputError: no such folder, or a file that still has to be unpacked.
    """
    folder = Path(source)
    if folder.is_file():
        raise InputError(f"{folder} is a file: unpack the archive and give its folder.")
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: give the folder of the unpacked archive.")
    return folder


def find_files(folder: Path, ending: str) -> list[Path]:
    """Every file below the folder with this ending, sorted; not the ``._`` files of archives made on a Mac."""
    return sorted(file for file in folder.rglob(f"*{ending}") if not file.name.startswith(".") and file.is_file())


def by_case(files: Iterable[Path], ending: str) -> dict[str, Path]:
    """The file of each case, whose name is the file's without the ending.

    Raises:
        InputError: two files of one case: a copy, or images that somebody has resampled.
    """
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(file.name.removesuffix(ending), file)
        if other != file:
            raise InputError(f"{other} and {file} are two cases with one name: give a folder that holds one of them.")
    return found


def no_cases(folder: Path, expected: str) -> InputError:
    """The error for an archive in which nothing was found."""
    return InputError(f"{folder} holds no case of this challenge: expected {expected}. See docs/DATA.md.")
