"""What a dataset is like, in numbers: grids, intensities per channel and label, volumes of the labels."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from .grid import Grid
from .image import voxels

if TYPE_CHECKING:
    from .case_check import CaseReport
    from .dataset import Dataset

SAMPLE = 4000  # values of each channel and label that a case adds to the percentiles
PERCENTILES = {"p0_5": 0.5, "p50": 50.0, "p99_5": 99.5}
OBLIQUE_DEGREES = 1.0


@dataclass(frozen=True, kw_only=True)
class Values:
    """Intensities of one case: exact sums and extremes, and an evenly drawn sample for the percentiles."""

    count: int
    total: float
    squares: float
    low: float
    high: float
    sample: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> "Values":
        """Of all values of a flat array that is not empty."""
        # In double precision: squares of a CT lose their digits in single.
        wide = array.astype(np.float64)
        return cls(
            count=array.size,
            total=float(wide.sum()),
            squares=float(wide @ wide),
            low=float(wide.min()),
            high=float(wide.max()),
            sample=array[:: max(1, array.size // SAMPLE)][:SAMPLE].astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True)
class LabelVolume:
    """How much of a case a label value takes."""

    ml: float
    share: float


def case_values(array: np.ndarray, label: np.ndarray | None) -> dict[int | None, Values]:
    """Intensities of an image by label value; the key None is the whole image."""
    result: dict[int | None, Values] = {None: Values.of(array.ravel())}
    if label is not None:
        for value in np.unique(label[label > 0]).tolist():
            result[int(value)] = Values.of(array[label == value])
    return result


def label_volumes(label: sitk.Image) -> dict[int, LabelVolume]:
    """Volume of each label value above 0."""
    array = voxels(label)
    voxel_ml = float(np.prod(label.GetSpacing())) / 1000
    values, counts = np.unique(array[array > 0], return_counts=True)
    return {
        int(value): LabelVolume(ml=count * voxel_ml, share=count / array.size)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }


def orientation(grid: Grid) -> str:
    """The patient directions that the index axes run towards, e.g. ``LPS``; oblique ones to the nearest."""
    letters = (("L", "R"), ("P", "A"), ("S", "I"))
    cosines = np.reshape(grid.direction, (3, 3))
    code = ""
    for column in cosines.T:
        axis = int(np.argmax(np.abs(column)))
        code += letters[axis][int(column[axis] < 0)]
    return code


def obliqueness(grid: Grid) -> float:
    """Largest angle in degrees between an index axis and the patient axis nearest to it."""
    cosines = np.abs(np.reshape(grid.direction, (3, 3))).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())


def fingerprint(dataset: "Dataset", reports: Sequence["CaseReport"]) -> dict[str, Any]:
    """The dataset in numbers, ready for JSON.

    ``spacing_mm``, ``size`` and ``extent_mm`` are x, y, z of the first channel as stored; intensities are over the
    voxels of all cases together (percentiles: of a sample that is the same in every run).
    """
    grids = [grid for report in reports if (grid := report.grid) is not None]
    labels: dict[str, Any] = {}
    for name, value in dataset.labels.items():
        if value == 0:
            continue
        volumes = [report.volumes[value] for report in reports if value in report.volumes]
        labels[name] = {
            "value": value,
            "cases": len(volumes),
            "volume_ml": _spread([volume.ml for volume in volumes]),
            "share": _spread([volume.share for volume in volumes]),
            "channels": {channel: _together(reports, channel, value) for channel in dataset.channels},
        }
    return {
        "cases": len(reports),
        "spacing_mm": _spread([grid.spacing for grid in grids]),
        "size": _spread([grid.size for grid in grids]),
        "extent_mm": _spread([np.multiply(grid.size, grid.spacing) for grid in grids]),
        "orientations": dict(Counter(orientation(grid) for grid in grids).most_common()),
        "oblique_cases": sum(obliqueness(grid) > OBLIQUE_DEGREES for grid in grids),
        "channels": {channel: _together(reports, channel, None) for channel in dataset.channels},
        "labels": labels,
    }


def _spread(values: Iterable[Any]) -> dict[str, Any] | None:
    """Median and range over the cases; of triples, each component by itself."""
    array = np.asarray(list(values), float)
    if not array.size:
        return None
    return {
        name: np.round(function(array, axis=0), 4).tolist()
        for name, function in (("median", np.median), ("min", np.min), ("max", np.max))
    }


def _together(reports: Sequence["CaseReport"], channel: str, value: int | None) -> dict[str, float] | None:
    parts = [part for report in reports if (part := report.values.get(channel, {}).get(value)) is not None]
    if not parts:
        return None
    count, total = sum(part.count for part in parts), sum(part.total for part in parts)
    mean = total / count
    variance = max(0.0, sum(part.squares for part in parts) / count - mean**2)
    sample = np.concatenate([part.sample for part in parts])
    numbers = {
        "mean": mean,
        "sd": variance**0.5,
        "min": min(part.low for part in parts),
        **{name: float(np.percentile(sample, percent)) for name, percent in PERCENTILES.items()},
        "max": max(part.high for part in parts),
    }
    return {name: float(f"{number:.6g}") for name, number in numbers.items()}
