"""What a clinician reads off a segmentation: volumes, values under the mask, and the PET measures.

NumPy and SimpleITK only. Images are resampled (linear) onto the label's grid before they are measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..data.grid import Grid, resample
from ..data.image import voxels

# Radius in mm of the sphere of 1 mL, SUVpeak's.
PEAK_RADIUS_MM = (3 * 1000 / (4 * np.pi)) ** (1 / 3)
# Sub-voxels at most this large decide how much of a voxel lies in the sphere.
PEAK_SAMPLING_MM = 0.25
# Voxels along an edge of the blocks in which SUVpeak is searched: bounds the memory of masks that span a whole body.
PEAK_BLOCK = 96


def statistics(
    prediction_label: sitk.Image,
    images: Mapping[str, sitk.Image],
    card: Mapping[str, Any],
    uncertainty: sitk.Image | None,
    notices: Sequence[str],
    pet_units: str | None,
    reference: str,
) -> dict[str, Any]:
    """The content of ``statistics.json``; what cannot be measured is None, never NaN.

    ``sd`` is the population's; percentiles are interpolated linearly. Voxels that an image does not cover are left out
    of its values. MTV is the mask's volume, TLG = SUVmean * MTV.

    Args:
        prediction_label: label values as in the card.
        images: by channel name, on any grid; PET in SUV.
        uncertainty: 0..1 on the label's grid.
        reference: what to call the image whose grid the label has.
    """
    grid = Grid.of(prediction_label)
    pet = next((c["name"] for c in card["channels"] if c["modality"] == "PET" and c["name"] in images), None)
    values = voxels(prediction_label)
    labels = []
    for entry in card["labels"]:
        if entry["value"] == 0:
            continue
        mask = values == entry["value"]
        box = _bounding_box(mask)
        labels.append(
            {
                "value": entry["value"],
                "name": entry["name"],
                **_extent(mask[box], grid),
                "mean_uncertainty": _mean_uncertainty(mask, box, uncertainty),
                "channels": {name: _distribution(_on(image, grid, box)[mask[box]]) for name, image in images.items()},
                "pet": None if pet is None else _pet_measures(mask, box, images[pet], grid),
            }
        )
    return {
        "reference": reference,
        "notices": list(notices),
        "pet_units": None if pet is None else pet_units,
        "labels": labels,
    }


Box = tuple[slice, slice, slice]


def _bounding_box(mask: np.ndarray) -> Box:
    """The smallest box ``(z, y, x)`` that holds the mask; of no extent where it is empty."""
    ends = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        ends.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 0))
    return tuple(ends)  # type: ignore[return-value]


def _voxel_volume(grid: Grid) -> float:
    """mm3, of an oblique grid as of any other."""
    return float(abs(np.linalg.det(grid.axes)))


def _extent(mask: np.ndarray, grid: Grid) -> dict[str, Any]:
    """Voxels, volume, and parts that not even a corner joins."""
    count = int(np.count_nonzero(mask))
    components = 0
    if count:
        parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
        components = int(voxels(parts).max())
    volume = count * _voxel_volume(grid)
    return {"voxels": count, "volume_mm3": volume, "volume_ml": volume / 1000, "components": components}


def _mean_uncertainty(mask: np.ndarray, box: Box, uncertainty: sitk.Image | None) -> float | None:
    if uncertainty is None or not mask[box].any():
        return None
    return float(voxels(uncertainty)[box][mask[box]].mean(dtype=np.float64))


def _on(image: sitk.Image, grid: Grid, box: Box) -> np.ndarray:
    """The image in a box of the grid, ``(z, y, x)``; NaN where the image does not reach."""
    size = [part.stop - part.start for part in box]
    if 0 in size:
        return np.zeros(size, np.float32)
    if Grid.of(image).same_as(grid):
        return voxels(image)[box]
    part = Grid(
        size=tuple(reversed(size)),  # type: ignore[arg-type]
        spacing=grid.spacing,
        origin=tuple(float(mm) for mm in grid.point(np.array([box[2].start, box[1].start, box[0].start]))),  # type: ignore[arg-type]
        direction=grid.direction,
    )
    return sitk.GetArrayFromImage(resample(image, part, background=float("nan")))


def _distribution(values: np.ndarray) -> dict[str, float | None]:
    values = values.astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return dict.fromkeys(("mean", "sd", "min", "max", "p5", "p50", "p95"))
    p5, p50, p95 = np.percentile(values, (5, 50, 95))
    return {
        "mean": float(values.mean()),
        "sd": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "p5": float(p5),
        "p50": float(p50),
        "p95": float(p95),
    }


def _pet_measures(mask: np.ndarray, box: Box, pet: sitk.Image, grid: Grid) -> dict[str, float | None]:
    values = _distribution(_on(pet, grid, box)[mask[box]])
    volume_ml = float(np.count_nonzero(mask[box])) * _voxel_volume(grid) / 1000
    mean = values["mean"]
    return {
        "suv_max": values["max"],
        "suv_mean": mean,
        "suv_peak": suv_peak(mask, pet, grid),
        "mtv_ml": volume_ml,
        "tlg": mean * volume_ml if mean is not None else (None if volume_ml else 0.0),
    }


def suv_peak(mask: np.ndarray, pet: sitk.Image, grid: Grid) -> float | None:
    """The highest mean of the PET in a sphere of 1 mL whose centre is the centre of a voxel of the mask.

    A voxel counts by the part of it that lies in the sphere, so that the measure holds on coarse and anisotropic grids.
    Where the sphere leaves the image, the mean is that of the part inside.

    Args:
        mask: ``(z, y, x)`` on ``grid``.
    """
    kernel = sphere_weights(grid.spacing)
    reach = [n // 2 for n in kernel.shape]
    best: float | None = None
    for block in _blocks(mask):
        around = tuple(
            slice(max(0, part.start - r), min(n, part.stop + r))
            for part, r, n in zip(block, reach, mask.shape, strict=True)
        )
        values = _on(pet, grid, around).astype(np.float64)  # type: ignore[arg-type]
        covered = np.isfinite(values)
        inner = tuple(
            slice(part.start - outer.start, part.stop - outer.start) for part, outer in zip(block, around, strict=True)
        )
        centres = mask[block] & covered[inner]
        if not centres.any():
            continue
        sums = _correlate(np.where(covered, values, 0.0), kernel)[inner][centres]
        weights = _correlate(covered.astype(np.float64), kernel)[inner][centres]
        highest = float((sums / weights).max())
        best = highest if best is None else max(best, highest)
    return best


def sphere_weights(spacing: Sequence[float]) -> np.ndarray:
    """``(z, y, x)``, each odd: the part of each voxel that lies in the 1 mL sphere around the centre of the middle one.

    By counting sub-voxels of at most `PEAK_SAMPLING_MM`; the sum times a voxel's volume is 1 mL within 1 %.
    """
    squares, samples = [], []
    for edge in reversed(spacing):
        count = max(2, int(np.ceil(edge / PEAK_SAMPLING_MM)))
        reach = int(np.ceil(PEAK_RADIUS_MM / edge - 0.5))
        squares.append(((np.arange((2 * reach + 1) * count) + 0.5) / count - 0.5 - reach) ** 2 * edge**2)
        samples.append(count)
    z, y, x = squares
    inside = z[:, None, None] + y[None, :, None] + x[None, None, :] <= PEAK_RADIUS_MM**2
    shape = [n for length, count in zip(inside.shape, samples, strict=True) for n in (length // count, count)]
    return inside.reshape(shape).mean(axis=(1, 3, 5))


def _blocks(mask: np.ndarray) -> Iterator[Box]:
    """Boxes that hold the mask's voxels, each as small as can be and at most `PEAK_BLOCK` along an edge."""
    box = _bounding_box(mask)
    starts = [range(part.start, part.stop, PEAK_BLOCK) for part in box]
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                corner = (z, y, x)
                part = _bounding_box(mask[tuple(slice(s, s + PEAK_BLOCK) for s in corner)])
                if part[0].stop:
                    yield tuple(  # type: ignore[misc]
                        slice(p.start + s, p.stop + s) for p, s in zip(part, corner, strict=True)
                    )


def _correlate(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sums of ``values`` under the (symmetric, odd) kernel centred at each voxel, 0 outside; through Fourier space.

    A kernel of 1 mL has some 1,000 voxels at 1 mm, so the direct sum would take seconds for a large tumour.
    """
    full = [n + k - 1 for n, k in zip(values.shape, kernel.shape, strict=True)]
    axes = (0, 1, 2)
    product = np.fft.rfftn(values, full, axes) * np.fft.rfftn(kernel, full, axes)
    result = np.fft.irfftn(product, full, axes)
    return result[tuple(slice(k // 2, k // 2 + n) for n, k in zip(values.shape, kernel.shape, strict=True))]
