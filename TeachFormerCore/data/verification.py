"""Whether a dataset is fit to train on: every file read, every fault named, before hours are spent on it.

What nnU-Net verifies (files, grids, NaN, label values, number of cases) and what it does not: constant channels, images
that are there twice, patients on both sides of a split, orientations and spacings unlike the others'.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..devices import usable_cores
from ..progress import Progress
from .case_check import CaseReport, Finding, check_case, names
from .dataset import Case, Dataset
from .fingerprint import fingerprint, orientation
from .grid import Grid
from .splits import load_splits, split_faults

MOST_THREADS = 8
# A spacing is an outlier beyond this factor from the median, or beyond so many median deviations where cases scatter.
SPACING_FACTOR, SPACING_DEVIATIONS = 2.0, 4.0


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Findings, faults first and in the order of the cases; the fingerprint is of the training cases."""

    findings: list[Finding]
    fingerprint: dict[str, Any]


def check_dataset(
    dataset: Dataset, splits: str | Path | None = None, *, show_progress: bool = False, threads: int | None = None
) -> list[Finding]:
    """The findings of `examine_dataset`."""
    return examine_dataset(dataset, splits, show_progress=show_progress, threads=threads).findings


def examine_dataset(
    dataset: Dataset,
    splits: str | Path | None = None,
    *,
    test: Dataset | None = None,
    show_progress: bool = False,
    threads: int | None = None,
) -> Examination:
    """Reads every file of a labelled dataset.

    Args:
        dataset: what to check.
        splits: also check this splits file against it.
        test: its kept-out cases (``Ts``), checked too and against the training cases; they may have no labels.
        show_progress: whether to report on standard error.
        threads: as many cases are read at a time; default the number of CPU cores, at most 8.

    Raises:
        InputError: the splits file is missing or not one.
    """
    folds = None if splits is None else load_splits(splits)
    threads = threads or min(MOST_THREADS, usable_cores())
    kept_out = test.cases if test is not None else ()
    total = len(dataset.cases) + len(kept_out)
    # SimpleITK and hashlib let other threads run while they work.
    with Progress(total, f"checking {dataset.name}") as progress, ThreadPoolExecutor(threads) as pool:

        def check(case: Case) -> CaseReport:
            report = check_case(dataset, case)
            if show_progress:
                progress.advance()
            return report

        reports, test_reports = list(pool.map(check, dataset.cases)), list(pool.map(check, kept_out))
    together = [*reports, *test_reports]
    findings = [finding for report in together for finding in report.findings]
    findings += _description(dataset, reports)
    findings += _missing_labels(dataset)
    findings += _duplicates(together)
    if test is not None:
        findings += _leaks(dataset, test)
    if folds is not None:
        findings += _check_splits(dataset, folds, str(splits))
    findings += _empty_labels(reports)
    findings += _repeated_channels(together)
    findings += _orientations(dataset, together)
    findings += _spacing_outliers(dataset, together)
    return Examination(
        findings=sorted(findings, key=lambda finding: finding.severity != "fault"),
        fingerprint=fingerprint(dataset, reports),
    )


def _description(dataset: Dataset, reports: Sequence[CaseReport]) -> Iterable[Finding]:
    """What dataset.json promises."""
    file = str(dataset.folder / "dataset.json")
    if dataset.stated_cases is not None and dataset.stated_cases != len(dataset.cases):
        message = f"states {dataset.stated_cases} training cases, {len(dataset.cases)} are there"
        yield Finding(severity="fault", case=None, file=file, message=message)
    values = sorted(dataset.labels.values())
    if values and values != list(range(len(values))):
        message = f"its label values {', '.join(map(str, values))} are not 0 (background), 1, 2, ... without a gap"
        yield Finding(severity="fault", case=None, file=file, message=message)
    held = {value for report in reports for value in report.volumes}
    unused = [name for name, value in dataset.labels.items() if value > 0 and value not in held]
    if unused and held:
        message = f"names labels that no case holds: {names(unused)}"
        yield Finding(severity="warning", case=None, file=file, message=message)


def _duplicates(reports: Sequence[CaseReport]) -> Iterable[Finding]:
    """Two cases with one image: the second may sit in another fold and be reported as unseen."""
    seen: dict[tuple[str, bytes], list[CaseReport]] = defaultdict(list)
    for report in reports:
        for channel, digest in report.contents.items():
            file = report.case.images[channel]
            for earlier in seen[channel, digest]:
                other = earlier.case.images[channel]
                if earlier.grids[other].same_as(report.grids[file]):
                    message = f"the same image as {other.name} of the case '{earlier.case.name}'"
                    yield Finding(severity="fault", case=report.case.name, file=str(file), message=message)
                    break
            else:
                seen[channel, digest].append(report)


def _leaks(dataset: Dataset, test: Dataset) -> Iterable[Finding]:
    """A patient of whom training cases exist is no test of what was trained on them."""
    training = set(dataset.patients().values())
    for case in test.cases:
        if case.patient in training:
            message = f"the patient '{case.patient}' is among the training cases too"
            file = str(next(iter(case.images.values())))
            yield Finding(severity="fault", case=case.name, file=file, message=message)


def _missing_labels(dataset: Dataset) -> Iterable[Finding]:
    unlabelled = [case.name for case in dataset.cases if case.label is None]
    if unlabelled:
        message = f"{len(unlabelled)} of {len(dataset.cases)} cases have no label: {names(unlabelled)}"
        yield Finding(severity="fault", case=None, file=str(dataset.folder), message=message)


def _empty_labels(reports: Sequence[CaseReport]) -> Iterable[Finding]:
    cases = [report.case for report in reports if report.label_is_empty]
    if cases and cases[0].label is not None:
        message = f"{len(cases)} of {len(reports)} labels are empty: {names([case.name for case in cases])}"
        yield Finding(severity="warning", case=None, file=str(cases[0].label.parent), message=message)


def _repeated_channels(reports: Sequence[CaseReport]) -> Iterable[Finding]:
    """A channel copied into the place of one that was never acquired."""
    cases = [report.case for report in reports if len(set(report.contents.values())) < len(report.contents)]
    if cases:
        message = f"{len(cases)} cases hold one image as two channels: {names([case.name for case in cases])}"
        file = next(iter(cases[0].images.values()))
        yield Finding(severity="warning", case=None, file=str(file.parent), message=message)


def _orientations(dataset: Dataset, reports: Sequence[CaseReport]) -> Iterable[Finding]:
    """Axes unlike the other cases': legal, and a mirrored label or a lost header looks like it."""
    codes = {report.case.name: orientation(grid) for report, grid in _grids(reports)}
    (usual, count), *others = Counter(codes.values()).most_common() or [("", 0)]
    for code, number in others:
        cases = [name for name, its in codes.items() if its == code]
        message = f"{number} cases are stored {code}, {count} {usual}: {names(cases)}"
        yield Finding(severity="warning", case=None, file=str(dataset.folder), message=message)


def _spacing_outliers(dataset: Dataset, reports: Sequence[CaseReport]) -> Iterable[Finding]:
    found = list(_grids(reports))
    if len(found) < 3:
        return
    logarithms = np.log([grid.spacing for _, grid in found])
    median = np.median(logarithms, axis=0)
    distance = np.abs(logarithms - median)
    limit = np.maximum(np.log(SPACING_FACTOR), SPACING_DEVIATIONS * np.median(distance, axis=0))
    usual = " x ".join(f"{value:.3g}" for value in np.exp(median))
    for (report, grid), far in zip(found, (distance > limit).any(axis=1), strict=True):
        if far:
            spacing = " x ".join(f"{value:.3g}" for value in grid.spacing)
            message = f"its spacing is {spacing} mm, the usual one {usual} mm"
            file = str(next(iter(report.case.images.values())))
            yield Finding(severity="warning", case=report.case.name, file=file, message=message)


def _grids(reports: Sequence[CaseReport]) -> Iterable[tuple[CaseReport, Grid]]:
    return ((report, grid) for report in reports if (grid := report.grid) is not None)


def _check_splits(dataset: Dataset, folds: Sequence[dict[str, list[str]]], file: str) -> Iterable[Finding]:
    for case, message in split_faults(folds, dataset.patients()):
        yield Finding(severity="fault", case=case, file=file, message=message)
    counts = Counter(name for fold in folds for name in fold["val"])
    never = [case.name for case in dataset.cases if not counts[case.name]]
    if never:
        message = f"{len(never)} of {len(dataset.cases)} cases are in val of no fold: {names(never)}"
        yield Finding(severity="warning", case=None, file=file, message=message)
