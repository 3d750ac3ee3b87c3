"""HECKTOR 2021: head and neck tumours in PET/CT, cut to the organisers' boxes at 1 mm (Teach-Former's 2 x 144^3).

On disk: ``hecktor_nii/<CASE>_ct.nii.gz, _pt.nii.gz`` (SUV), ``_gtvt.nii.gz`` (elsewhere ``_ct_gtvt.nii.gz``) and
``hecktor2021_bbox_training.csv`` with PatientID, x1, x2, y1, y2, z1, z2: boxes of 144 mm in LPS millimetres. The case's
prefix names its centre: CHGJ, CHMR, CHUM, CHUP, CHUS; in other years also HGJ, HMR, MDA, USZ.
"""

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ...errors import InputError
from ..channels import Channel, background_value
from ..grid import Grid, resample, resample_label
from ..image import image_like, read_finite_image, voxels
from ..units import check_channel
from .archive import Archive, SourceCase, TargetCase, archive_folder, by_case, find_files, no_cases
from .held_out import draw_test, share

CENTRE = re.compile(r"([A-Za-z]+)")
LABEL_ENDINGS = ("_gtvt.nii.gz", "_ct_gtvt.nii.gz")
SPACING_MM, BOX_MM = 1.0, 144.0
TRAINING, TEST = 180, 44  # of Teach-Former
WORTH_A_NOTE = 0.05  # of the tumour outside of its box

TestRule = Literal["paper", "none"]


@dataclass(frozen=True)
class Box:
    """Corners in LPS millimetres."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def grid(self) -> Grid:
        """The organisers' grid: the first voxel's centre lies in the low corner, the axes are the patient's."""
        size = [max(1, round((high - low) / SPACING_MM)) for low, high in zip(self.low, self.high, strict=True)]
        return Grid(
            size=tuple(size),  # type: ignore[arg-type]
            spacing=(SPACING_MM,) * 3,
            origin=self.low,
            direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        )


def archive(source: str | Path, *, boxes: str | Path | None = None, test: TestRule = "paper") -> Archive:
    """The cases of an unpacked HECKTOR 2021 archive.

    Args:
        source: the folder that holds ``hecktor_nii`` and the boxes, or one above or below.
        boxes: the file of boxes, where it lies elsewhere.
        test: ``paper`` keeps out 44 of 224 cases (of an archive with another number the same share), whole centres as
            far as that allows; ``none`` keeps all cases for training.

    Raises:
        InputError: no cases, or no file of boxes.
    """
    folder = archive_folder(source)
    names = by_case(find_files(folder, "_ct.nii.gz"), "_ct.nii.gz")
    if not names:
        raise no_cases(folder, "hecktor_nii/<CASE>_ct.nii.gz")
    tables = [Path(boxes)] if boxes is not None else _find_boxes(folder)
    box_of = {name: box for table in tables for name, box in read_boxes(table).items()}
    labels = {name: label for name, file in names.items() if (label := _label_of(name, file))}
    centres = {name: match.group(1) if (match := CENTRE.match(name)) else "unknown" for name in names}
    held_out: set[str] = set()
    if test == "paper":
        count = share(len(labels), part=TEST, whole=TRAINING + TEST)
        held_out = draw_test({name: name for name in sorted(labels)}, count, centres=centres)
    unlabelled = sorted(set(names) - set(labels))
    # Beside labelled test cases, unlabelled ones could not be told apart from broken ones.
    kept = sorted(names if test == "none" else labels)
    cases = tuple(
        SourceCase(
            name=name,
            split="Ts" if name in held_out or name not in labels else "Tr",
            files=[file for file in (names[name], _pet_of(names[name]), labels.get(name)) if file is not None],
            read=lambda name=name: [_read(name, names[name], labels.get(name), box_of.get(name), tables)],  # type: ignore[misc]
        )
        for name in kept
    )
    if not cases:
        raise no_cases(folder, "a label <CASE>_gtvt.nii.gz of a case; without labels, use --test none")
    out = [f"{len(unlabelled)} cases without a label (with --test none they become imagesTs)"] if unlabelled else []
    return Archive(
        challenge="hecktor21",
        source=folder,
        options={"test": test},
        channels=("CT", "PET"),
        labels={"background": 0, "GTVt": 1},
        licence="HECKTOR 2021 end-user agreement: research use, no redistribution",
        reference="HECKTOR 2021 (Andrearczyk et al.), www.aicrowd.com/challenges/miccai-2021-hecktor",
        centre_pattern="([A-Za-z]+)",
        cases=cases,
        left_out=() if test == "none" else out,
        description={"description": f"CT and PET in the organisers' boxes, {SPACING_MM:g} mm; test cases: {test}"},
    )


def read_boxes(file: Path) -> dict[str, Box]:
    """The box of each patient.

    Raises:
        InputError: the file is missing, or has other columns.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = [{(key or "").strip(): value for key, value in row.items()} for row in csv.DictReader(text)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} could not be read as a table of boxes ({error}).") from error
    boxes = {}
    for row in rows:
        try:
            ends = [(float(row[f"{axis}1"]), float(row[f"{axis}2"])) for axis in "xyz"]
            name = row["PatientID"].strip()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{file} is not the organisers' table: it needs PatientID, x1, x2, y1, y2, z1, z2 with numbers in each "
                "row."
            ) from error
        if all(math.isfinite(low) and math.isfinite(high) and low < high for low, high in ends):
            (x1, x2), (y1, y2), (z1, z2) = ends
            boxes[name] = Box((x1, y1, z1), (x2, y2, z2))
    return boxes


def _find_boxes(folder: Path) -> list[Path]:
    """The tables of the training and of the test cases, as far as they are there."""
    for found in (find_files(folder, ".csv"), sorted(folder.parent.glob("*.csv"))):
        if tables := [file for file in found if "bbox" in file.name.lower()]:
            return tables
    raise InputError(f"{folder} holds no table of boxes (hecktor2021_bbox_training.csv): give it with --boxes.")


def _label_of(name: str, ct: Path) -> Path | None:
    return next((file for ending in LABEL_ENDINGS if (file := ct.with_name(name + ending)).is_file()), None)


def _pet_of(ct: Path) -> Path:
    return ct.with_name(ct.name.removesuffix("_ct.nii.gz") + "_pt.nii.gz")


def _read(name: str, ct_file: Path, label_file: Path | None, box: Box | None, tables: list[Path]) -> TargetCase:
    told = ", ".join(map(str, tables))
    if box is None:
        raise InputError(f"{told}: no box for {name} (or one without extent).")
    grid = box.grid()
    notes = []
    if any(abs(high - low - BOX_MM) > SPACING_MM / 2 for low, high in zip(box.low, box.high, strict=True)):
        notes.append(f"its box is not {BOX_MM:g} mm long: {' x '.join(map(str, grid.size))} voxels")
    images = []
    for modality, file in (("CT", ct_file), ("PET", _pet_of(ct_file))):
        image = read_finite_image(file)
        if not grid.overlaps(Grid.of(image)):
            raise InputError(f"The box of {name} lies outside of {file}: check the table {told}.")
        notes += _unit_notes(image, modality, file)
        cut = resample(image, grid, background=background_value(modality))
        images.append(image_like(np.rint(voxels(cut)).astype(np.int16), cut) if modality == "CT" else cut)
    label = None
    if label_file is not None:
        source = read_finite_image(label_file) > 0  # binary, whatever number the foreground has
        mask = resample_label(source, grid)
        label = image_like(mask, images[0])
        notes += _tumour_notes(source, int(mask.sum()), name)
    return TargetCase(name=name, images=images, label=label, notes=tuple(notes))


def _unit_notes(image: sitk.Image, modality: str, file: Path) -> Iterable[str]:
    """Training refuses such an image; here it is passed on and told."""
    try:
        check_channel(image, Channel(modality, modality, {}), file.name)
    except InputError as error:
        yield str(error)


def _tumour_notes(source: sitk.Image, inside: int, name: str) -> Iterable[str]:
    total = int(voxels(source).sum()) * math.prod(source.GetSpacing())
    if not total:
        yield "its label is empty"
        return
    if not inside:
        raise InputError(f"The tumour of {name} lies outside of its box.")
    outside = 1 - inside * SPACING_MM**3 / total
    if outside > WORTH_A_NOTE:
        yield f"{outside:.0%} of the tumour's volume lies outside of the box"
