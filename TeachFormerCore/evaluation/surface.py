"""Distances between the surfaces of two masks: HD95 and surface Dice.

The definition is that of DeepMind's surface-distance (Nikolov et al. 2018, arXiv 1809.04430), on purpose, since eleven
tools differ by over 100 mm on the same masks: a mask's surface consists of one element ("surfel") at each corner point
of the voxel grid whose 2 x 2 x 2 neighbour voxels are neither all inside nor all outside, with the area of the marching
cubes triangles in that cell. Distances are between corner points; percentiles and fractions are weighted with areas.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import missing_dependency

# NIfTI stores a voxel edge of 0.6 mm as 0.60000002: five of them must still count as within 3 mm.
ROUNDING_MM = 1e-6


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """For each surfel of one mask its distance in mm to the nearest surfel of the other, and its area in mm2.

    All four arrays are one-dimensional and not empty: surfels of the prediction, then those of the reference.
    """

    prediction_mm: np.ndarray
    prediction_areas: np.ndarray
    reference_mm: np.ndarray
    reference_areas: np.ndarray

    def hausdorff_mm(self, percent: float = 95.0) -> float:
        """The larger of the two directions' area-weighted percentiles, in mm."""
        return max(
            _weighted_percentile(self.prediction_mm, self.prediction_areas, percent),
            _weighted_percentile(self.reference_mm, self.reference_areas, percent),
        )

    def dice(self, tolerance_mm: float) -> float:
        """The part of both surfaces' area, 0..1, that lies within the tolerance of the other surface."""
        limit = tolerance_mm + ROUNDING_MM
        near = self.prediction_areas[self.prediction_mm <= limit].sum()
        near += self.reference_areas[self.reference_mm <= limit].sum()
        return float(near / (self.prediction_areas.sum() + self.reference_areas.sum()))


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> SurfaceDistances | None:
    """The surfaces' distances of two boolean masks, or None where either is empty and has no surface.

    A mask that reaches the image's border ends there: outside the image all is background.

    Args:
        prediction: ``(z, y, x)``.
        reference: of the same shape.
        spacing: voxel edges in mm in the order of the array's axes: z, y, x.

    Raises:
        MissingDependencyError: scipy or monai is not installed.
    """
    areas = surfel_areas(tuple(float(edge) for edge in spacing))
    if not prediction.any() or not reference.any():
        return None
    box = _bounding_box(prediction | reference)
    points, sizes = zip(*(_surfels(mask[box], spacing, areas) for mask in (prediction, reference)), strict=True)
    return SurfaceDistances(
        prediction_mm=_nearest_mm(points[0], points[1]),
        prediction_areas=sizes[0],
        reference_mm=_nearest_mm(points[1], points[0]),
        reference_areas=sizes[1],
    )


def check_installed() -> None:
    """Raises the `MissingDependencyError` of `surface_distances` before the work that would end in it."""
    surfel_areas((1.0, 1.0, 1.0))
    _search_tree()


@functools.lru_cache(maxsize=64)
def surfel_areas(spacing: tuple[float, float, float]) -> np.ndarray:
    """``(256,)``: area in mm2 of the surface in a cell for each code of its eight corners' voxels.

    Args:
        spacing: voxel edges in mm, z, y, x.

    Raises:
        MissingDependencyError: monai, which holds the tables, is not installed.
    """
    try:
        from monai.metrics.utils import get_code_to_measure_table
    except ImportError as error:
        raise missing_dependency("monai", extra="report", purpose="measure surfaces (HD95, surface Dice)") from error
    return get_code_to_measure_table(spacing)[0].numpy().astype(np.float64)


def _search_tree() -> Any:
    try:
        from scipy.spatial import KDTree
    except ImportError as error:
        raise missing_dependency("scipy", extra="report", purpose="measure surfaces (HD95, surface Dice)") from error
    return KDTree


def _nearest_mm(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``(n,)``: for each of the points ``(n, 3)`` the distance to the nearest of the others ``(m, 3)``."""
    # A tree and not a distance transform: it grows with the surface, not with the space between two far blobs. These
    # settings halve the time for surfaces that lie far apart, the slow case.
    return _search_tree()(others, leafsize=64, balanced_tree=False).query(points)[0]


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def _surfels(mask: np.ndarray, spacing: Sequence[float], areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions ``(n, 3)`` in mm and areas ``(n,)`` in mm2 of the surfels of a boolean mask ``(z, y, x)``."""
    padded = np.pad(mask, 1).astype(np.uint8)
    corners = tuple(size - 1 for size in padded.shape)
    code = np.zeros(corners, np.uint8)
    # The code's highest bit is the voxel before the corner on all three axes, the lowest the one after on all three.
    for bit, (z, y, x) in enumerate(np.ndindex(2, 2, 2)):
        code |= padded[z : z + corners[0], y : y + corners[1], x : x + corners[2]] << np.uint8(7 - bit)
    places = np.nonzero((code != 0) & (code != 255))
    return np.stack(places, axis=1) * np.asarray(spacing, float), areas[code[places]]


def _weighted_percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    """The smallest value below or at which lie ``percent`` of the weight."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    position = np.searchsorted(share, percent / 100 * share[-1])
    return float(values[order[min(position, len(values) - 1)]])
