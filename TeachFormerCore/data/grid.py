"""Voxel grids in physical space (LPS millimetres) and the one way images move between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:  # a grid alone is arithmetic: Slicer's window asks it, and SimpleITK takes 0.2 s to load
    import SimpleITK as sitk

# Two grids are the same where no voxel centre is further off than this part of the smallest voxel edge.
SAME_GRID_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Size (x, y, z) in voxels, spacing in mm, origin of the first voxel's centre and direction cosines in LPS.

    ``direction`` is row-major: its columns are the directions of the index axes.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: "sitk.Image") -> "Grid":
        """The grid of an image."""
        return cls(
            size=image.GetSize(),
            spacing=image.GetSpacing(),
            origin=image.GetOrigin(),
            direction=image.GetDirection(),
        )

    @property
    def axes(self) -> np.ndarray:
        """``(3, 3)``: column i is the step in mm from a voxel to the next along index axis i."""
        return np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)

    def point(self, index: np.ndarray) -> np.ndarray:
        """LPS millimetres of continuous indices ``(..., 3)`` in x, y, z order."""
        return np.asarray(index, float) @ self.axes.T + np.asarray(self.origin)

    def index(self, point: np.ndarray) -> np.ndarray:
        """Continuous indices (x, y, z) of points ``(..., 3)`` in LPS millimetres."""
        return (np.asarray(point, float) - np.asarray(self.origin)) @ np.linalg.inv(self.axes).T

    def corners(self) -> np.ndarray:
        """``(8, 3)``: the outer corners of the field of view (voxel edges, not centres) in LPS millimetres."""
        ends = [(-0.5, n - 0.5) for n in self.size]
        return self.point(np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, 8).T)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest LPS millimetres of the field of view."""
        corners = self.corners()
        return corners.min(axis=0), corners.max(axis=0)

    def field_of_view_mm(self) -> tuple[float, float, float]:
        """Extents in mm of the field of view, each index axis given to the patient axis (L, P, S) it is nearest to."""
        extents = np.asarray(self.size) * np.asarray(self.spacing)
        cosines = np.abs(np.reshape(self.direction, (3, 3)))
        patient_axis = np.full(3, -1)
        for _ in range(3):
            row, column = np.unravel_index(np.argmax(cosines), (3, 3))
            patient_axis[row] = column
            cosines[row, :] = cosines[:, column] = -1
        return tuple(float(extents[column]) for column in patient_axis)  # type: ignore[return-value]

    def same_as(self, other: "Grid") -> bool:
        """Whether every voxel lies at the same place, within a hundredth of a voxel edge."""
        if self.size != other.size:
            return False
        offset = np.abs(self.corners() - other.corners()).max()
        return bool(offset <= SAME_GRID_TOLERANCE * min(*self.spacing, *other.spacing))

    def overlaps(self, other: "Grid") -> bool:
        """Whether the fields of view share space (separating axes of the two boxes)."""
        mine, theirs = self.corners(), other.corners()
        normals = [*self.axes.T, *other.axes.T]
        normals += [np.cross(a, b) for a in self.axes.T for b in other.axes.T]
        for normal in normals:
            length = np.linalg.norm(normal)
            if length < 1e-6:
                continue
            a, b = mine @ normal / length, theirs @ normal / length
            if a.max() <= b.min() or b.max() <= a.min():
                return False
        return True

    def part(self, start: Sequence[int] | np.ndarray, size: Sequence[int] | np.ndarray) -> "Grid":
        """The grid of a block of voxels: its first index and its size, x, y, z."""
        return Grid(
            size=tuple(int(n) for n in size),  # type: ignore[arg-type]
            spacing=self.spacing,
            origin=tuple(float(mm) for mm in self.point(np.asarray(start))),  # type: ignore[arg-type]
            direction=self.direction,
        )

    def describe(self) -> str:
        """E.g. ``120 x 80 x 40 voxels of 1.95 x 1.95 x 3.27 mm``."""
        size = " x ".join(map(str, self.size))
        return f"{size} voxels of {' x '.join(f'{value:.3g}' for value in self.spacing)} mm"


def patient_grid(image: Grid, spacing: tuple[float, float, float]) -> Grid:
    """The model's grid for an image: along the patient axes (LPS), of the given spacing, over its whole field of view.

    It shares the image's centre, so flipped, permuted or rotated copies of one image give one and the same grid.
    """
    low, high = image.bounds()
    extent = high - low
    # A field of view that is a whole number of voxels must not gain one by rounding.
    size = np.maximum(1, np.ceil(extent / np.asarray(spacing) - 1e-3)).astype(int)
    origin = (low + high) / 2 - (size - 1) / 2 * np.asarray(spacing)
    return Grid(
        size=tuple(int(n) for n in size),  # type: ignore[arg-type]
        spacing=tuple(float(s) for s in spacing),  # type: ignore[arg-type]
        origin=tuple(float(o) for o in origin),  # type: ignore[arg-type]
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )


def resample(image: "sitk.Image", grid: Grid, *, background: float = 0.0, nearest: bool = False) -> "sitk.Image":
    """The image on another grid, in physical space; outside its field of view ``background``.

    Linear interpolation to float32, or nearest neighbour with the image's own type for labels.
    """
    import SimpleITK as sitk

    return sitk.Resample(
        image,
        grid.size,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        grid.origin,
        grid.spacing,
        grid.direction,
        background,
        image.GetPixelID() if nearest else sitk.sitkFloat32,
    )


def resample_label(label: "sitk.Image", grid: Grid) -> np.ndarray:
    """A label map on another grid, ``(z, y, x)`` uint8.

    Each class by linear interpolation of its mask, the largest wins. Smoother than nearest neighbour, which leaves
    stairs; a voxel of which no class holds half is background. A voxel exactly between the last one of a class and the
    first one beyond it counts as the class: where the ratio of the spacings makes that common (1 mm to 2 mm), volumes
    grow by a few per cent; elsewhere they stay as they are within one.

    Raises:
        InputError: a class that is no whole number from 0 to 255.
    """
    import SimpleITK as sitk

    from .image import voxels

    values = np.unique(voxels(label))
    if values.min() < 0 or values.max() > 255 or not np.array_equal(values, np.rint(values)):
        raise InputError(f"A label holds values that are not whole numbers from 0 to 255, e.g. {values.max():g}.")
    if Grid.of(label).same_as(grid):
        return voxels(label).astype(np.uint8)
    classes = np.zeros(grid.size[::-1], np.uint8)
    strongest = np.full(classes.shape, 0.5, np.float32)
    for value in values[values > 0].tolist():
        share = voxels(resample(sitk.Cast(label == value, sitk.sitkFloat32), grid))
        wins = share >= strongest
        classes[wins], strongest[wins] = value, share[wins]
    return classes
