"""PI-CAI 2022: clinically significant prostate cancer in T2W, ADC and high-b-value MR (Teach-Former's 24 x 384 x 384).

On disk: the public folds' ``<patient>/<patient>_<study>_{t2w,adc,hbv}.mha`` (``images/`` or one folder a fold) and the
repository ``picai_labels`` with ``csPCa_lesion_delineations/human_expert/resampled/<patient>_<study>.nii.gz``. The
experts' values are ISUP grades: cancer that is clinically significant is grade 2 and above. The AI-derived labels
(``AI/Bosma22a``) hold 1 for it. ``clinical_information/marksheet.csv`` names the centre of a study.
"""

import csv
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ...devices import usable_cores
from ...errors import InputError
from ...progress import Progress
from ..grid import Grid, resample, resample_label
from ..image import image_like, read_finite_image, voxels
from .archive import Archive, SourceCase, TargetCase, archive_folder, by_case, find_files, no_cases
from .held_out import draw_test, share

CHANNELS = ("t2w", "adc", "hbv")
DELINEATIONS = "csPCa_lesion_delineations"
EXPERT, AI = "human_expert/resampled", "AI/Bosma22a"
SIGNIFICANT_ISUP = 2
SPACING_MM, SIZE = (0.5, 0.5, 3.0), (384, 384, 24)
TRAINING, TEST = 180, 40  # of Teach-Former
STUDY = re.compile(r"(\d+)_(\d+)")

Form = Literal["3d", "2d"]
TestRule = Literal["paper", "none"]


def archive(
    source: str | Path,
    *,
    labels: str | Path | None = None,
    folders: Sequence[str] = (EXPERT,),
    form: Form = "3d",
    negatives: bool = False,
    test: TestRule = "paper",
) -> Archive:
    """The studies of the unpacked public folds that have a label.

    Args:
        source: the folder that holds the images and, unless ``labels`` says where, ``picai_labels``.
        labels: the folder ``picai_labels``, or ``csPCa_lesion_delineations`` itself.
        folders: of delineations, searched in this order; the experts' later releases hold further ones. Those below
            ``AI`` count every value as cancer.
        form: ``3d``, one case a study, or ``2d``, one a slice.
        negatives: whether to take studies without significant cancer too.
        test: ``paper`` keeps out 40 of 220 studies (else the same share), patients whole; ``none`` none.

    Raises:
        InputError: no images, or no labels.
    """
    folder = archive_folder(source)
    t2w = by_case(find_files(folder, "_t2w.mha"), "_t2w.mha")
    studies = {name: file for name, file in t2w.items() if STUDY.fullmatch(name)}
    if not studies:
        raise no_cases(folder, "<patient>/<patient>_<study>_t2w.mha")
    root = _delineations(Path(labels) if labels is not None else folder)
    label_of: dict[str, tuple[Path, int]] = {}
    for sub in folders:
        if not (root / sub).is_dir():
            raise InputError(f"{root} has no folder {sub}: give the one to use with --label-folder.")
        least = 1 if sub.split("/")[0] == "AI" else SIGNIFICANT_ISUP
        for file in find_files(root / sub, ".nii.gz"):
            label_of.setdefault(file.name.removesuffix(".nii.gz"), (file, least))
    labelled = sorted(set(studies) & set(label_of))
    kept = labelled if negatives else _positives(label_of, labelled)
    if not kept:
        raise no_cases(folder, f"a study with significant cancer in {', '.join(folders)} (or --negatives)")
    patients = {name: name.split("_")[0] for name in kept}
    count = share(len(kept), part=TEST, whole=TRAINING + TEST) if test == "paper" else 0
    held_out = draw_test(patients, count)
    centres = _centres(root)
    cases = tuple(
        SourceCase(
            name=name,
            patient=patients[name],
            centre=centres.get(name),
            split="Ts" if name in held_out else "Tr",
            files=[*(studies[name].with_name(f"{name}_{channel}.mha") for channel in CHANNELS), label_of[name][0]],
            read=lambda name=name: _read(name, studies[name], *label_of[name], form),  # type: ignore[misc]
        )
        for name in kept
    )
    left_out = [
        sentence
        for count, sentence in (
            (len(labelled) - len(kept), "studies without significant cancer (taken with --negatives)"),
            (len(studies) - len(labelled), "studies without a label in the folders used"),
        )
        if count
        for sentence in [f"{count} {sentence}"]
    ]
    return Archive(
        challenge="picai22",
        source=folder,
        options={"folders": list(folders), "form": form, "negatives": negatives, "test": test},
        channels=("T2W", "ADC", "HBV"),
        labels={"background": 0, "csPCa": 1},
        licence="CC BY-NC 4.0",
        reference="PI-CAI public training and development dataset (Saha et al.), DOI 10.5281/zenodo.6624726",
        patient_pattern=r"(\d+)_",
        cases=cases,
        left_out=left_out,
        description={"description": f"T2W, ADC and HBV on {SIZE[2]} slices of 3 mm, 0.5 mm in the plane; form {form}"},
    )


def study_grid(t2w: Grid) -> Grid:
    """24 slices of 3 mm with 384 x 384 pixels of 0.5 mm, along the axes and about the centre of the T2W image."""
    grid = Grid(size=SIZE, spacing=SPACING_MM, origin=(0.0, 0.0, 0.0), direction=t2w.direction)
    origin = t2w.point((np.array(t2w.size) - 1) / 2) - grid.point((np.array(SIZE) - 1) / 2)
    return Grid(size=SIZE, spacing=SPACING_MM, origin=tuple(origin.tolist()), direction=t2w.direction)


def _delineations(folder: Path) -> Path:
    if folder.name == DELINEATIONS and folder.is_dir():
        return folder
    for depth in ("", "*/", "*/*/"):
        found = sorted(folder.glob(f"{depth}{DELINEATIONS}"))
        if found:
            return found[0]
    raise InputError(f"{folder} holds no folder {DELINEATIONS}: get the repository picai_labels and give --labels.")


def _positives(label_of: dict[str, tuple[Path, int]], names: Sequence[str]) -> list[str]:
    """Those of the studies whose label holds significant cancer: every label is read for it."""
    with Progress(len(names), "reading labels of picai22") as progress, ThreadPoolExecutor(usable_cores()) as pool:

        def one(name: str) -> bool:
            positive = _is_positive(*label_of[name])
            progress.advance()
            return positive

        return [name for name, positive in zip(names, pool.map(one, names), strict=True) if positive]


def _is_positive(file: Path, least: int) -> bool:
    """Whether a label holds significant cancer; one that cannot be read counts, so that the conversion names it."""
    try:
        return bool((voxels(read_finite_image(file)) >= least).any())
    except InputError:
        return True


def _centres(delineations: Path) -> dict[str, str]:
    """The centre of each study, where the marksheet is beside the delineations."""
    try:
        with (delineations.parent / "clinical_information" / "marksheet.csv").open(encoding="utf-8-sig") as text:
            rows = list(csv.DictReader(text))
        return {f"{row['patient_id']}_{row['study_id']}": row["center"] for row in rows if row["center"]}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        return {}


def _read(name: str, t2w_file: Path, label_file: Path, least: int, form: Form) -> list[TargetCase]:
    images: list[sitk.Image] = []
    grid = None
    for channel in CHANNELS:
        file = t2w_file.with_name(f"{name}_{channel}.mha")
        image = read_finite_image(file)
        grid = grid or study_grid(Grid.of(image))
        if not grid.overlaps(Grid.of(image)):
            raise InputError(f"{file} and the T2W image of {name} show different places.")
        images.append(resample(image, grid))
    assert grid is not None
    source = read_finite_image(label_file) >= least
    if not grid.overlaps(Grid.of(source)):
        raise InputError(f"{label_file} and the T2W image of {name} show different places.")
    mask = resample_label(source, grid)
    lost = voxels(source).any() and not mask.any()
    notes = ("its lesion is lost between the slices of 3 mm or lies outside of the crop",) if lost else ()
    label = image_like(mask, images[0])
    if form == "3d":
        return [TargetCase(name=name, images=images, label=label, notes=notes)]
    return [
        TargetCase(
            name=f"{name}_s{number:02d}",
            images=[image[:, :, number : number + 1] for image in images],
            label=label[:, :, number : number + 1],
            notes=notes if number == 0 else (),
        )
        for number in range(SIZE[2])
    ]
