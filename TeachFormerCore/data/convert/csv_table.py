"""Any images that a table names: one row a case, NIfTI, NRRD, MetaImage or folders of DICOM series.

Columns: ``case`` (its name), optionally ``patient``, ``centre``, ``split`` (``train``/``Tr`` or ``test``/``Ts``) and
``label``; every other column is a channel, in the table's order. Paths are relative to the table. Channels on other
grids are resampled to the first one's; the folder of a PET series becomes SUV.
"""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ...errors import InputError
from ..channels import background_value, modality_of
from ..grid import Grid, resample, resample_label
from ..image import image_like, read_finite_image, voxels
from .archive import Archive, SourceCase, Split, TargetCase

OWN_COLUMNS = ("case", "patient", "centre", "split", "label")
SPLITS: dict[str, Split] = {"": "Tr", "train": "Tr", "tr": "Tr", "training": "Tr", "test": "Ts", "ts": "Ts"}
CASE_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


def archive(source: str | Path, *, labels: Mapping[str, int] | None = None, licence: str = "not stated") -> Archive:
    """The cases of a table.

    Args:
        source: the table, or a folder that holds one CSV file.
        labels: name -> value of the foreground in the files; written as 1, 2, ... in the order of the values. Without
            it they are named after the values that the labels hold, and kept.
        licence: for ``dataset.json``.

    Raises:
        InputError: no table, or one with columns or rows that cannot be used.
    """
    table = _table(Path(source))
    columns, rows = _rows(table)
    channels = [name for name in columns if name.lower() not in OWN_COLUMNS]
    if "case" not in map(str.lower, columns) or not channels:
        raise InputError(f"{table} needs the column 'case' and one column a channel, e.g. case,CT,PET,label.")
    if len({name.lower() for name in columns}) < len(columns):
        raise InputError(f"{table} has two columns with one name: {', '.join(columns)}.")
    written = {value: number for number, value in enumerate(sorted((labels or {}).values()), start=1)}
    cases: dict[str, SourceCase] = {}
    for number, row in enumerate(rows, start=2):
        own = {name.lower(): value for name, value in row.items() if name.lower() in OWN_COLUMNS}
        name = own["case"]
        if not CASE_NAME.fullmatch(name):
            raise InputError(f"{table}, line {number}: '{name}' is no case name: use letters, digits, '_', '-', '.'.")
        if name in cases:
            raise InputError(f"{table}, line {number}: the case '{name}' is there twice.")
        if own.get("split", "").lower() not in SPLITS:
            raise InputError(f"{table}, line {number}: the split '{own['split']}' is neither train nor test.")
        images = {channel: table.parent / row[channel] for channel in channels if row[channel]}
        label = table.parent / own["label"] if own.get("label") else None
        cases[name] = SourceCase(
            name=name,
            patient=own.get("patient") or None,
            centre=own.get("centre") or None,
            split=SPLITS[own.get("split", "").lower()],
            files=[path for path in (*images.values(), label) if path is not None and path.exists()],
            read=lambda name=name, images=images, label=label: [  # type: ignore[misc]
                _read(name, channels, images, label, written)
            ],
        )
    if not cases:
        raise InputError(f"{table} holds no cases.")
    return Archive(
        challenge="csv",
        source=Path(source),
        options={"labels": dict(labels)} if labels else {},
        channels=channels,
        labels={"background": 0} | {name: written[value] for name, value in labels.items()} if labels else None,
        licence=licence,
        reference=f"table {table.name}",
        cases=tuple(cases[name] for name in sorted(cases)),
    )


def _table(source: Path) -> Path:
    if source.is_file():
        return source
    tables = sorted(source.glob("*.csv")) if source.is_dir() else []
    if len(tables) != 1:
        raise InputError(f"{source} must be a CSV table, or a folder with one; it holds {len(tables)}.")
    return tables[0]


def _rows(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
        comma = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
        reader = csv.DictReader(lines, delimiter=comma)
        columns = [(name or "").strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = [{k: (row.get(k) or "").strip() for k in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} could not be read as a CSV table in UTF-8 ({error}).") from error
    return columns, rows


def _read(
    name: str, channels: list[str], images: Mapping[str, Path], label_file: Path | None, written: Mapping[int, int]
) -> TargetCase:
    read: list[sitk.Image] = []
    notes = []
    for channel in channels:
        if channel not in images:
            raise InputError(f"The case {name} has no file for the channel {channel}.")
        image, how = _read_channel(images[channel], channel)
        notes += [f"{channel}: {how}"] if how else []
        if read and not Grid.of(image).same_as(Grid.of(read[0])):
            if not Grid.of(image).overlaps(Grid.of(read[0])):
                raise InputError(f"{images[channel]} and {images[channels[0]]} show different places.")
            image = resample(image, Grid.of(read[0]), background=background_value(modality_of(channel)))
            notes.append(f"{channel} was resampled to the grid of {channels[0]}")
        read.append(image)
    label = None
    if label_file is not None:
        source = read_finite_image(label_file, single_slice=True)
        mask = resample_label(source, Grid.of(read[0]))
        if voxels(source).any() and not mask.any():
            raise InputError(f"{label_file} and {images[channels[0]]} show different places: no label is left.")
        if not Grid.of(source).same_as(Grid.of(read[0])):
            notes.append(f"the label was resampled to the grid of {channels[0]}")
        label = image_like(_renumbered(mask, written, label_file) if written else mask, read[0])
    return TargetCase(name=name, images=read, label=label, notes=tuple(notes))


def _renumbered(mask: np.ndarray, written: Mapping[int, int], file: Path) -> np.ndarray:
    unknown = sorted(set(np.unique(mask).tolist()) - {0, *written})
    if unknown:
        raise InputError(f"{file} holds the values {unknown}, which --labels does not name.")
    result = np.zeros_like(mask)
    for value, number in written.items():
        result[mask == value] = number
    return result


def _read_channel(path: Path, channel: str) -> tuple[sitk.Image, str | None]:
    """The image, and how its SUV was computed where it is a PET series."""
    if path.is_dir() and modality_of(channel) == "PET":
        from ..suv import read_suv

        return read_suv(path)
    return read_finite_image(path, single_slice=True), None
