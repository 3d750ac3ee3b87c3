"""Axial, coronal and sagittal planes of an image, cut in physical space as radiologists see them."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

MARGIN_MM = 50.0  # shown around the mask where the images reach that far


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A cut: which LPS directions run to the right and downwards, and the letters at left, right, top and bottom."""

    name: str
    right: tuple[int, int, int]
    down: tuple[int, int, int]
    letters: str


PLANES = (
    Plane(name="Axial", right=(1, 0, 0), down=(0, 1, 0), letters="RLAP"),
    Plane(name="Coronal", right=(1, 0, 0), down=(0, 0, -1), letters="RLHF"),
    Plane(name="Sagittal", right=(0, 1, 0), down=(0, 0, -1), letters="APHF"),
)


@dataclass(frozen=True, kw_only=True)
class View:
    """What is shown: the box ``low``..``high`` and the point ``centre`` the planes pass through, LPS millimetres."""

    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray

    def extent(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane's panel in mm."""
        size = self.high - self.low
        return float(np.abs(plane.right) @ size), float(np.abs(plane.down) @ size)


def view_of(mask: sitk.Image) -> View:
    """The box around a mask, `MARGIN_MM` wider but within the image, and its centre of mass; all where it is empty."""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in mask.GetSize()), indexing="ij")).reshape(3, 8).T
    low, high = _bounds(mask, corners)
    found = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)[:, ::-1]
    if not len(found):
        return View(low=low, high=high, centre=(low + high) / 2)
    mask_low, mask_high = _bounds(mask, found)
    centre = np.array(mask.TransformContinuousIndexToPhysicalPoint(found.mean(axis=0).tolist()))
    return View(low=np.maximum(low, mask_low - MARGIN_MM), high=np.minimum(high, mask_high + MARGIN_MM), centre=centre)


def _bounds(image: sitk.Image, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest LPS millimetres of voxels ``(n, 3)`` (x, y, z), their edges included."""
    axes = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    points = indices @ axes.T + np.array(image.GetOrigin())
    half = np.abs(axes).sum(axis=1) / 2
    return points.min(axis=0) - half, points.max(axis=0) + half


def cut(image: sitk.Image, plane: Plane, view: View, *, pixel_mm: float = 0.5, background: float = 0.0) -> np.ndarray:
    """``(rows, columns)``: one plane of an image, as on the screen, by linear interpolation."""
    right, down = np.array(plane.right, float), np.array(plane.down, float)
    normal = np.cross(right, down)
    size = [max(1, round(length / pixel_mm)) for length in view.extent(plane)]
    step = [length / n for length, n in zip(view.extent(plane), size, strict=True)]
    # The corner of the box where the panel begins, top left, and from there half a pixel inwards.
    corner = np.where(right + down > 0, view.low, view.high)
    origin = np.where(normal != 0, view.centre, corner) + right * step[0] / 2 + down * step[1] / 2
    resampled = sitk.Resample(
        image,
        [*size, 1],
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        origin.tolist(),
        [*step, 1.0],
        np.stack([right, down, normal], axis=1).ravel().tolist(),
        background,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(resampled)[0]
