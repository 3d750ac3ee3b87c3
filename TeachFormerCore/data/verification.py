"""Whether a dataset is fit to train on: every file read, every fault named, before hours are spent on it."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..progress import Progress
from .dataset import Case, Dataset
from .grid import Grid
from .image import read_image, voxels
from .integrity import non_finite_voxels
from .splits import load_splits, split_faults

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
class _CaseReport:
    """What reading one case gave; ``contents`` are the digests of the voxels of its channels."""

    findings: list[Finding] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    grids: dict[Path, Grid] = field(default_factory=dict)
    label_is_empty: bool = False

    def fault(self, case: Case, file: Path, message: str) -> None:
        self.findings.append(Finding(severity="fault", case=case.name, file=str(file), message=message))


def check_dataset(
    dataset: Dataset, splits: str | Path | None = None, *, show_progress: bool = False, threads: int | None = None
) -> list[Finding]:
    """Reads every file of a labelled dataset; faults come first, in the order of the cases.

    Args:
        dataset: what to check.
        splits: also check this splits file against it.
        show_progress: whether to report on standard error.
        threads: as many cases are read at a time; default the number of CPU cores, at most 8.

    Raises:
        InputError: the splits file is missing or not one.
    """
    folds = None if splits is None else load_splits(splits)
    threads = threads or min(
        8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    # SimpleITK and hashlib let other threads run while they work.
    with Progress(len(dataset.cases), f"checking {dataset.name}") as progress, ThreadPoolExecutor(threads) as pool:

        def check(case: Case) -> _CaseReport:
            report = _check_case(dataset, case)
            if show_progress:
                progress.advance()
            return report

        reports = list(pool.map(check, dataset.cases))
    findings = [finding for report in reports for finding in report.findings]
    findings += _missing_labels(dataset)
    findings += _duplicates(dataset, reports)
    if folds is not None:
        findings += _check_splits(dataset, folds, str(splits))
    findings += _empty_labels(dataset, reports)
    findings += _repeated_channels(dataset, reports)
    return sorted(findings, key=lambda finding: finding.severity != "fault")


def _check_case(dataset: Dataset, case: Case) -> _CaseReport:
    report = _CaseReport()
    for channel, file in case.images.items():
        image = _read(case, file, report)
        if image is None:
            continue
        array = voxels(image)
        report.grids[file] = Grid.of(image)
        if not _all_finite(case, file, array, report):
            continue
        low, high = array.min(), array.max()
        if low == high:
            report.fault(case, file, f"every voxel has the value {low:g}: the channel says nothing")
        else:
            report.contents[channel] = _digest(array)
    if case.label is not None and (label := _read(case, case.label, report)) is not None:
        report.grids[case.label] = Grid.of(label)
        _check_label(dataset, case, voxels(label), report)
    _check_grids(case, report)
    return report


def _read(case: Case, file: Path, report: _CaseReport) -> sitk.Image | None:
    if not file.exists():
        report.fault(case, file, "is missing")
        return None
    try:
        return read_image(file, single_slice=True)
    except InputError as error:
        report.fault(case, file, str(error).removeprefix(f"{file} "))
        return None


def _all_finite(case: Case, file: Path, array: np.ndarray, report: _CaseReport) -> bool:
    if array.dtype.kind != "f":
        return True
    count = max(array.size - int(np.isfinite(array).sum()), non_finite_voxels(file))
    if count:
        report.fault(case, file, f"{count} of {array.size} voxels are NaN or infinite")
    return count == 0


def _check_label(dataset: Dataset, case: Case, array: np.ndarray, report: _CaseReport) -> None:
    assert case.label is not None
    if not _all_finite(case, case.label, array, report):
        return
    values = np.unique(array)
    report.label_is_empty = not values.any()
    broken = [value for value in values if value != np.rint(value)]
    unknown = [value for value in values if value not in {0, *dataset.labels.values()} and value == np.rint(value)]
    if broken:
        report.fault(case, case.label, f"label values that are not whole numbers: {_numbers(broken)}")
    if unknown and dataset.labels:
        known = ", ".join(f"{value} {name}" for name, value in dataset.labels.items())
        report.fault(case, case.label, f"label values that the dataset does not name ({known}): {_numbers(unknown)}")


def _check_grids(case: Case, report: _CaseReport) -> None:
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
            report.fault(case, file, f"its grid is not that of {common.name}: {difference(grid, report.grids[common])}")


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


def _duplicates(dataset: Dataset, reports: Sequence[_CaseReport]) -> Iterable[Finding]:
    """Two cases with one image: the second may sit in another fold and be reported as unseen."""
    seen: dict[tuple[str, bytes], list[Case]] = defaultdict(list)
    grids = {case.name: report.grids for case, report in zip(dataset.cases, reports, strict=True)}
    for case, report in zip(dataset.cases, reports, strict=True):
        for channel, digest in report.contents.items():
            file = case.images[channel]
            for earlier in seen[channel, digest]:
                if grids[earlier.name][earlier.images[channel]].same_as(report.grids[file]):
                    message = f"the same image as {earlier.images[channel].name} of the case '{earlier.name}'"
                    yield Finding(severity="fault", case=case.name, file=str(file), message=message)
                    break
            else:
                seen[channel, digest].append(case)


def _missing_labels(dataset: Dataset) -> Iterable[Finding]:
    unlabelled = [case.name for case in dataset.cases if case.label is None]
    if unlabelled:
        message = f"{len(unlabelled)} of {len(dataset.cases)} cases have no label: {_names(unlabelled)}"
        yield Finding(severity="fault", case=None, file=str(dataset.folder), message=message)


def _empty_labels(dataset: Dataset, reports: Sequence[_CaseReport]) -> Iterable[Finding]:
    cases = [case for case, report in zip(dataset.cases, reports, strict=True) if report.label_is_empty]
    if cases:
        message = f"{len(cases)} of {len(dataset.cases)} labels are empty: {_names([case.name for case in cases])}"
        yield Finding(severity="warning", case=None, file=str(_folder_of(cases[0].label)), message=message)


def _repeated_channels(dataset: Dataset, reports: Sequence[_CaseReport]) -> Iterable[Finding]:
    """A channel copied into the place of one that was never acquired."""
    cases = [
        case
        for case, report in zip(dataset.cases, reports, strict=True)
        if len(set(report.contents.values())) < len(report.contents)
    ]
    if cases:
        message = f"{len(cases)} cases hold one image as two channels: {_names([case.name for case in cases])}"
        file = next(iter(cases[0].images.values()))
        yield Finding(severity="warning", case=None, file=str(_folder_of(file)), message=message)


def _check_splits(dataset: Dataset, folds: Sequence[dict[str, list[str]]], file: str) -> Iterable[Finding]:
    for case, message in split_faults(folds, dataset.patients()):
        yield Finding(severity="fault", case=case, file=file, message=message)
    counts = Counter(name for fold in folds for name in fold["val"])
    never = [case.name for case in dataset.cases if not counts[case.name]]
    if never:
        message = f"{len(never)} of {len(dataset.cases)} cases are in val of no fold: {_names(never)}"
        yield Finding(severity="warning", case=None, file=file, message=message)


def _folder_of(file: Path | None) -> Path:
    return file.parent if file is not None else Path()


def _numbers(values: Sequence[float]) -> str:
    return _names([f"{value:g}" for value in values])


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
