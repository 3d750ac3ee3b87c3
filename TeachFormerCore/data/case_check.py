"""One case of a dataset, every file read once: what is wrong with it, and what the fingerprint needs of it."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .dataset import Case, Dataset
from .fingerprint import LabelVolume, Values, case_values, label_volumes
from .grid import Grid
from .image import read_image, voxels
from .integrity import non_finite_voxels

NAMES_SHOWN = 8  # of the cases in a counted finding


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found. A fault makes the dataset unfit; a warning is worth knowing.

    ``case`` is None where the finding is about the whole dataset.
    """

    severity: Literal["fault", "warning"]
    case: str | None
    file: str
    message: str


@dataclass(kw_only=True)
class CaseReport:
    """What reading one case gave.

    Attributes:
        contents: digests of the voxels of its channels.
        grids: of each file that could be read.
        label_is_empty: whether there is a label without foreground.
        values: intensities, by channel and then by label value, None for the whole image.
        volumes: by label value.
    """

    case: Case
    findings: list[Finding] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    grids: dict[Path, Grid] = field(default_factory=dict)
    label_is_empty: bool = False
    values: dict[str, dict[int | None, Values]] = field(default_factory=dict)
    volumes: dict[int, LabelVolume] = field(default_factory=dict)

    def fault(self, file: Path, message: str) -> None:
        """Adds a fault of one of the case's files."""
        self.findings.append(Finding(severity="fault", case=self.case.name, file=str(file), message=message))

    @property
    def grid(self) -> Grid | None:
        """The first channel's."""
        return self.grids.get(next(iter(self.case.images.values())))


def check_case(dataset: Dataset, case: Case) -> CaseReport:
    """Reads every file of a case.

    Args:
        dataset: whose labels are known.
        case: the case.
    """
    report = CaseReport(case=case)
    label = None
    if case.label is not None:
        label = _read(case.label, report)
    if label is not None and case.label is not None:
        report.grids[case.label] = Grid.of(label)
        if _check_label(dataset, case.label, voxels(label), report):
            report.volumes = label_volumes(label)
    images: dict[Path, Grid] = {}
    for channel, file in case.images.items():
        image = _read(file, report)
        if image is None:
            continue
        array = voxels(image)
        images[file] = Grid.of(image)
        if not _all_finite(file, array, report):
            continue
        low, high = array.min(), array.max()
        if low == high:
            report.fault(file, f"every voxel has the value {low:g}: the channel says nothing")
            continue
        report.contents[channel] = _digest(array)
        fits = report.volumes and label is not None and label.GetSize() == image.GetSize()
        report.values[channel] = case_values(array, voxels(label) if fits and label is not None else None)
    report.grids = images | report.grids
    _check_grids(report)
    return report


def names(listed: list[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(listed[:NAMES_SHOWN])
    return shown if len(listed) <= NAMES_SHOWN else f"{shown} and {len(listed) - NAMES_SHOWN} more"


def _read(file: Path, report: CaseReport) -> sitk.Image | None:
    if not file.exists():
        report.fault(file, "is missing")
        return None
    try:
        return read_image(file, single_slice=True)
    except InputError as error:
        report.fault(file, str(error).removeprefix(f"{file} "))
        return None


def _all_finite(file: Path, array: np.ndarray, report: CaseReport) -> bool:
    if array.dtype.kind != "f":
        return True
    count = max(array.size - int(np.isfinite(array).sum()), non_finite_voxels(file))
    if count:
        report.fault(file, f"{count} of {array.size} voxels are NaN or infinite")
    return count == 0


def _check_label(dataset: Dataset, file: Path, array: np.ndarray, report: CaseReport) -> bool:
    """Whether the label holds whole numbers that the dataset names."""
    if not _all_finite(file, array, report):
        return False
    values = np.unique(array)
    report.label_is_empty = not values.any()
    broken = [value for value in values if value != np.rint(value)]
    unknown = [value for value in values if value not in {0, *dataset.labels.values()} and value == np.rint(value)]
    if broken:
        report.fault(file, f"label values that are not whole numbers: {_numbers(broken)}")
    if unknown and dataset.labels:
        known = ", ".join(f"{value} {name}" for name, value in dataset.labels.items())
        report.fault(file, f"label values that the dataset does not name ({known}): {_numbers(unknown)}")
    return not broken and not unknown


def _check_grids(report: CaseReport) -> None:
    """Each file against the grid that most files of the case share; the first one's where they all differ."""
    first = next(iter(report.grids.values()), None)
    if first is None or all(grid.same_as(first) for grid in report.grids.values()):
        return
    agreeing = {
        file: sum(grid.same_as(other) for other in report.grids.values()) for file, grid in report.grids.items()
    }
    common = max(agreeing, key=lambda file: agreeing[file])
    for file, grid in report.grids.items():
        if not grid.same_as(report.grids[common]):
            report.fault(file, f"its grid is not that of {common.name}: {difference(grid, report.grids[common])}")


def difference(grid: Grid, other: Grid) -> str:
    """How two grids differ, e.g. ``size 20 x 30 x 40 against 20 x 30 x 41, origin 3.00 mm apart``."""
    parts = []
    if grid.size != other.size:
        parts.append(f"size {' x '.join(map(str, grid.size))} against {' x '.join(map(str, other.size))}")
    if not np.allclose(grid.spacing, other.spacing, rtol=1e-3, atol=0):
        mine, theirs = (" x ".join(f"{value:.4g}" for value in each.spacing) for each in (grid, other))
        parts.append(f"spacing {mine} against {theirs} mm")
    axes, other_axes = (np.reshape(each.direction, (3, 3)) for each in (grid, other))
    angle = np.degrees(np.arccos(np.clip((axes * other_axes).sum(axis=0), -1, 1))).max()
    if angle > 0.05:
        parts.append(f"axes turned by {angle:.1f} degrees")
    shift = float(np.linalg.norm(np.subtract(grid.origin, other.origin)))
    if shift > 0.005:
        parts.append(f"origin {shift:.2f} mm apart")
    if grid.size == other.size:
        furthest = float(np.linalg.norm(grid.corners() - other.corners(), axis=1).max())
        parts.append(f"voxels up to {furthest:.3g} mm apart")
    return ", ".join(parts)


def _digest(array: np.ndarray) -> bytes:
    """Of the values and the shape, whatever type of number a file stores them as."""
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    digest.update((array.astype(np.float32) + np.float32(0)).tobytes())  # -0 and 0 are one value
    return digest.digest()


def _numbers(values: list[float]) -> str:
    return names([f"{value:g}" for value in values])
