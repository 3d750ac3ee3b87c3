"""CHAOS: abdominal organs in MR, T1-DUAL (in and out of phase) or T2-SPIR, with the organisers' PNG ground truth.

On disk: ``<Train_Sets|Test_Sets>/MR/<PATIENT>/T1DUAL/DICOM_anon/{InPhase,OutPhase}/*.dcm``, ``T1DUAL/Ground/*.png``,
``T2SPIR/DICOM_anon/*.dcm`` and ``T2SPIR/Ground/*.png``. Each sequence has a ground truth of its own, on its own grid,
so each makes a dataset of its own. A PNG is a slice, with the file name of the DICOM slice it belongs to; slices are
ordered by their position in the patient, which may run against the file names.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ...errors import InputError
from ..dicom import read_dicom_stack
from ..grid import Grid, resample
from ..image import image_like
from ..integrity import itk_reason
from .archive import Archive, SourceCase, TargetCase, archive_folder, no_cases

MrSequence = Literal["t1dual", "t2spir"]
Organs = Literal["all", "liver"]
STACKS = {"t1dual": ("InPhase", "OutPhase"), "t2spir": (".",)}  # folders below DICOM_anon, a channel each
CHANNELS = {"t1dual": ("T1_in_phase", "T1_out_phase"), "t2spir": ("T2_SPIR",)}
# The organisers' grey values: 63 liver, 126 right kidney, 189 left kidney, 252 spleen, each with a margin (low, high].
GREY = {"liver": (55, 70), "right_kidney": (110, 135), "left_kidney": (175, 200), "spleen": (240, 255)}


def archive(source: str | Path, *, sequence: MrSequence = "t1dual", organs: Organs = "all") -> Archive:
    """The MR patients of an unpacked CHAOS archive; those without ground truth, the test set, become ``imagesTs``.

    Args:
        source: the folder that holds ``Train_Sets`` or the patients.
        sequence: which MR.
        organs: ``liver`` leaves the other organs out of the labels, as MISSU does.

    Raises:
        InputError: no patients, or two with one number.
    """
    folder = archive_folder(source)
    found: dict[str, Path] = {}
    for sub in sorted(folder.rglob(sequence.upper())):
        if (sub / "DICOM_anon").is_dir():
            name = f"MR_{sub.parent.name}"
            if name in found:
                raise InputError(f"{found[name].parent} and {sub.parent} are two patients with one number: keep one.")
            found[name] = sub
    if not found:
        raise no_cases(folder, f"MR/<PATIENT>/{sequence.upper()}/DICOM_anon")
    names = ("liver",) if organs == "liver" else tuple(GREY)
    cases = tuple(
        SourceCase(
            name=name,
            split="Tr" if (sub / "Ground").is_dir() else "Ts",
            files=[
                *(sub / "DICOM_anon" / stack for stack in STACKS[sequence]),
                *([sub / "Ground"] if (sub / "Ground").is_dir() else []),
            ],
            read=lambda name=name, sub=sub: [_read(name, sub, sequence, names)],  # type: ignore[misc]
        )
        for name, sub in sorted(found.items())
    )
    return Archive(
        challenge="chaos",
        source=folder,
        options={"sequence": sequence, "organs": organs},
        channels=CHANNELS[sequence],
        labels={"background": 0} | {name: value for value, name in enumerate(names, start=1)},
        licence="CC BY-SA 4.0",
        reference="CHAOS (Kavur et al.), DOI 10.1016/j.media.2020.101950, data DOI 10.5281/zenodo.3431873",
        cases=cases,
    )


def _read(name: str, sub: Path, sequence: MrSequence, organs: Sequence[str]) -> TargetCase:
    images: list[sitk.Image] = []
    slices: list[list[Path]] = []
    notes = []
    for stack in STACKS[sequence]:
        folder = sub / "DICOM_anon" / stack
        if not folder.is_dir():
            raise InputError(f"{folder} is missing.")
        image, files = read_dicom_stack(_files(folder, ".dcm"), folder)
        if images and not Grid.of(image).same_as(Grid.of(images[0])):
            image = resample(image, Grid.of(images[0]))
            notes.append(f"{stack} was resampled to the grid of {STACKS[sequence][0]}")
        images.append(image)
        slices.append(files)
    label = None
    if (sub / "Ground").is_dir():
        masks, by_order = _pair(_files(sub / "Ground", ".png"), slices, sub)
        if by_order:
            notes.append("its masks do not bear the names of its slices: paired in the order of the numbers")
        label = image_like(np.stack([_mask(file, images[0], organs) for file in masks]), images[0])
    return TargetCase(name=name, images=images, label=label, notes=tuple(notes))


def _files(folder: Path, ending: str) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() == ending and not f.name.startswith("."))


def _pair(masks: Sequence[Path], slices: Sequence[Sequence[Path]], sub: Path) -> tuple[list[Path], bool]:
    """The mask of each slice, in the slices' order; by name, else (second value) by the numbers in the names."""
    for files in slices:
        by_name = {mask.stem: mask for mask in masks}
        if set(by_name) == {file.stem for file in files}:
            return [by_name[file.stem] for file in files], False
    if len(masks) != len(slices[0]):
        raise InputError(f"{sub / 'Ground'} holds {len(masks)} masks for {len(slices[0])} slices.")
    mask_of = dict(zip(sorted(slices[0], key=_number), sorted(masks, key=_number), strict=True))
    return [mask_of[file] for file in slices[0]], True


def _number(file: Path) -> tuple[int, str]:
    """The last number of a name: ``IMG-0004-00002`` is slice 2."""
    numbers = re.findall(r"\d+", file.stem)
    return (int(numbers[-1]) if numbers else 0, file.name)


def _mask(file: Path, image: sitk.Image, organs: Sequence[str]) -> np.ndarray:
    """A slice of the ground truth as classes ``(y, x)``; PNG and DICOM both begin at the top left pixel."""
    try:
        png = sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise InputError(f"{file} could not be read ({itk_reason(error)}): copy it again.") from error
    grey = sitk.GetArrayFromImage(png)
    if grey.shape != image.GetSize()[1::-1]:
        raise InputError(f"{file} has {' x '.join(map(str, grey.shape[::-1]))} pixels, its slice has others.")
    result = np.zeros(grey.shape, np.uint8)
    known = grey == 0
    for name, (low, high) in GREY.items():
        inside = (grey > low) & (grey <= high)
        known |= inside
        if name in organs:
            result[inside] = organs.index(name) + 1
    if not known.all():
        raise InputError(f"{file} holds the grey value {grey[~known][0]}, which stands for no organ.")
    return result
