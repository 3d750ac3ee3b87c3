"""The way back from the model's grid to the reference's exact grid, one map at a time and no more than is needed."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..data.grid import Grid, resample
from ..data.image import image_like, voxels

# Voxels of the reference in which labels are compared at a time: bounds the memory on large images.
SLAB_VOXELS = 2**24


@dataclass(frozen=True, kw_only=True)
class Placing:
    """From arrays ``(z, y, x)`` on the model's grid to images on the reference's.

    Attributes:
        model_grid: where the arrays lie.
        reference: the image whose grid the results have.
        start: index (x, y, z) in the reference of the part that was computed.
        size: its size (x, y, z).
    """

    model_grid: Grid
    reference: sitk.Image
    start: tuple[int, ...]
    size: tuple[int, ...]

    def place(self, values: np.ndarray, *, outside: float = 0.0) -> sitk.Image:
        """Values on the reference's grid, float32, linearly interpolated; ``outside`` where nothing was computed."""
        view = Grid.of(self.reference).part(self.start, self.size)
        image = resample(self._image(values), view, background=outside)
        if self.size != self.reference.GetSize():
            whole = sitk.Image(self.reference.GetSize(), image.GetPixelID())
            if outside:
                whole += outside
            # In place: a whole body's map is hundreds of megabytes, which sitk.Paste would copy.
            whole[tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))] = image
            image = whole
        # Bit for bit the reference's geometry, not a rounding of it.
        image.CopyInformation(self.reference)
        return image

    def label(self, probabilities: np.ndarray) -> sitk.Image:
        """The most probable class per voxel of the reference, uint8, from ``(classes, z, y, x)``.

        Interpolated probabilities are compared, which gives smooth borders: one class at a time, slab by slab, and
        only in the box where a class can win at all. Interpolation never exceeds the voxels it lies between, so that is
        where one of them reaches 1 / classes.
        """
        label = np.zeros(self.reference.GetSize()[::-1], np.uint8)
        classes = len(probabilities)
        boxes = {
            number: box
            for number in range(1, classes)
            if (box := self._box(probabilities[number] >= 1 / classes)) is not None
        }
        if boxes:
            starts, ends = zip(*boxes.values(), strict=True)
            start, end = np.min(starts, axis=0), np.max(ends, axis=0)
            thickness = max(1, SLAB_VOXELS // int(np.prod((end - start)[:2])))
            images = {number: self._image(probabilities[number]) for number in (0, *boxes)}
            for z in range(start[2], end[2], thickness):
                slab = (np.array([*start[:2], z]), np.array([*end[:2], min(end[2], z + thickness)]))
                self._label_slab(label, images, boxes, slab, two=classes == 2)
        return image_like(label, self.reference)

    def _label_slab(
        self,
        label: np.ndarray,
        images: dict[int, sitk.Image],
        boxes: dict[int, tuple[np.ndarray, np.ndarray]],
        slab: tuple[np.ndarray, np.ndarray],
        *,
        two: bool,
    ) -> None:
        """Fills the label between two corners (x, y, z) of the reference."""
        grid = Grid.of(self.reference)
        # Of two classes the one above a half wins.
        size = slab[1] - slab[0]
        best = (
            np.full(size[::-1], 0.5, np.float32)
            if two
            else np.array(voxels(resample(images[0], grid.part(slab[0], size), background=1.0)))
        )
        for number, (low, high) in boxes.items():
            low, high = np.maximum(low, slab[0]), np.minimum(high, slab[1])
            if (low >= high).any():
                continue
            rival = voxels(resample(images[number], grid.part(low, high - low)))
            here = tuple(slice(a, b) for a, b in zip((low - slab[0])[::-1], (high - slab[0])[::-1], strict=True))
            wins = rival > best[here]
            label[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))][wins] = number
            np.maximum(best[here], rival, out=best[here])

    def _box(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """First and one past the last voxel (x, y, z) of the reference, within the computed part, around a mask."""
        ends = []
        for axis in (2, 1, 0):
            filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
            if not filled.size:
                return None
            ends.append((filled[0] - 1, filled[-1] + 1))  # interpolation reaches to the next voxel's centre
        corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, 8).T
        index = Grid.of(self.reference).index(self.model_grid.point(corners))
        first = np.maximum(np.floor(index.min(axis=0)).astype(int), self.start)
        last = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, np.add(self.start, self.size))
        return (first, last) if (first < last).all() else None

    def _image(self, values: np.ndarray) -> sitk.Image:
        image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
        image.SetOrigin(self.model_grid.origin)
        image.SetSpacing(self.model_grid.spacing)
        image.SetDirection(self.model_grid.direction)
        return image
