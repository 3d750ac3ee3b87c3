"""BraTS 2019: gliomas in FLAIR, T1, contrast-enhanced T1 and T2, registered and at 1 mm by the organisers.

On disk: ``{HGG,LGG}/<CASE>/<CASE>_{flair,t1,t1ce,t2,seg}.nii.gz`` (or ``.nii``), the validation set without grades and
``seg``. Values are kept; the labels 1, 2, 4 become 1, 2, 3 (`regions`).
"""

import re
from pathlib import Path

from ...errors import InputError
from ..grid import Grid
from ..image import image_like, read_finite_image, voxels
from ..regions import ORGANISERS, REGIONS, from_organisers
from .archive import Archive, SourceCase, TargetCase, archive_folder, no_cases

CHANNELS = ("flair", "t1", "t1ce", "t2")
FLAIR = re.compile(r"(?!\.)(.+)_flair\.nii(\.gz)?")


def archive(source: str | Path) -> Archive:
    """The cases of an unpacked BraTS 2019 archive; those without ``seg``, the validation set, become ``imagesTs``.

    Raises:
        InputError: no cases, or two with one name.
    """
    folder = archive_folder(source)
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*_flair.nii*")):
        match = FLAIR.fullmatch(file.name)
        if match is None or not file.is_file():
            continue
        if found.setdefault(match.group(1), file) != file:
            raise InputError(f"{found[match.group(1)]} and {file} are two cases with one name: keep one.")
    if not found:
        raise no_cases(folder, "HGG/<CASE>/<CASE>_flair.nii.gz")
    cases = tuple(
        SourceCase(
            name=name,
            split="Ts" if _beside(file, name, "seg") is None else "Tr",
            files=[path for part in (*CHANNELS, "seg") if (path := _beside(file, name, part))],
            read=lambda name=name, file=file: [_read(name, file)],  # type: ignore[misc]
        )
        for name, file in sorted(found.items())
    )
    return Archive(
        challenge="brats19",
        source=folder,
        channels=("FLAIR", "T1", "T1ce", "T2"),
        labels={"background": 0, "necrotic_core": 1, "oedema": 2, "enhancing_tumour": 3},
        licence="BraTS 2019 data usage agreement: research use, no redistribution",
        reference="BraTS 2019: Menze et al. DOI 10.1109/TMI.2014.2377694; Bakas et al. DOI 10.1038/sdata.2017.117",
        # BraTS19_<centre>_<patient>_<scan>
        patient_pattern=r"(BraTS\d+_[^_]+_[^_]+|.+)",
        centre_pattern=r"BraTS\d+_([^_]+)_",
        cases=cases,
        description={
            "regions": {name: list(values) for name, values in REGIONS.items()},
            "organisers_values": {str(ours): theirs for theirs, ours in ORGANISERS.items()},
        },
    )


def _beside(flair: Path, name: str, part: str) -> Path | None:
    """The file of another part of the case; packed or not, whichever there is."""
    for ending in (".nii.gz", ".nii"):
        path = flair.with_name(f"{name}_{part}{ending}")
        if path.is_file():
            return path
    return None


def _read(name: str, flair: Path) -> TargetCase:
    images = []
    for channel in CHANNELS:
        file = _beside(flair, name, channel)
        if file is None:
            raise InputError(f"{flair.parent} has no {name}_{channel}.nii.gz.")
        images.append(read_finite_image(file))
        _check_grid(Grid.of(images[-1]), Grid.of(images[0]), file, flair)
    label = None
    segmentation = _beside(flair, name, "seg")
    if segmentation is not None:
        source = read_finite_image(segmentation)
        _check_grid(Grid.of(source), Grid.of(images[0]), segmentation, flair)
        try:
            label = image_like(from_organisers(voxels(source)), images[0])
        except ValueError as error:
            raise InputError(f"{segmentation} holds {error}.") from error
    grade = flair.parent.parent.name
    notes = () if segmentation is None or grade in ("HGG", "LGG") else ("its folder tells no grade (HGG, LGG)",)
    return TargetCase(name=name, images=images, label=label, notes=notes)


def _check_grid(grid: Grid, other: Grid, file: Path, reference: Path) -> None:
    if not grid.same_as(other):
        raise InputError(f"{file} does not lie on the grid of {reference.name}, as BraTS files do.")
