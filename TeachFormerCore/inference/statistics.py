"""What a clinician reads off a segmentation: volumes, values under the mask, and the PET measures.

NumPy and SimpleITK only. Images are resampled (linear) onto the label's grid before they are measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..data.grid import Grid, resample
from ..data.image import voxels
from .region import as_percent

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
    of its values. MTV is the mask's volume, TLG = SUVmean * MTV: None where the PET leaves out more than 0.5 % of the
    mask, which a notice tells. SUVmax is the highest of the PET's own voxels with their centres in the mask, since
    interpolation lowers a maximum, and of the interpolated ones, since a small mask may hold no such centre.

    Args:
        prediction_label: label values as in the card.
        images: by channel name, on any grid; PET in SUV.
        uncertainty: 0..1 on the label's grid.
        reference: what to call the image whose grid the label has.
    """
    grid = Grid.of(prediction_label)
    pet = next((c["name"] for c in card["channels"] if c["modality"] == "PET" and c["name"] in images), None)
    label = voxels(prediction_label)
    labels: list[dict[str, Any]] = []
    notices = list(notices)
    for entry in card["labels"]:
        if entry["value"] == 0:
            continue
        mask = label == entry["value"]
        box = _bounding_box(mask)
        values_of = {name: _on(image, grid, box)[mask[box]] for name, image in images.items()}
        covered = as_percent(_share_covered(values_of[pet])) if pet else None
        if covered:
            notices.append(
                f"{pet} covers {covered} of the volume of {entry['name']}: its SUV figures are of that part, and TLG "
                "is left out."
            )
        labels.append(
            {
                "value": entry["value"],
                "name": entry["name"],
                **_extent(mask[box], grid),
                "mean_uncertainty": _mean_uncertainty(mask, box, uncertainty),
                "channels": {name: _distribution(inside) for name, inside in values_of.items()},
                "pet": pet and _pet_measures(mask, box, images[pet], grid, values_of[pet], whole=covered is None),
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
    return sitk.GetArrayFromImage(resample(image, _part(grid, box), background=float("nan")))


def _part(grid: Grid, box: Box) -> Grid:
    return grid.part([part.start for part in reversed(box)], [part.stop - part.start for part in reversed(box)])


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


def _share_covered(values: np.ndarray) -> float:
    return float(np.isfinite(values).mean()) if values.size else 1.0


def _pet_measures(
    mask: np.ndarray, box: Box, pet: sitk.Image, grid: Grid, values: np.ndarray, *, whole: bool
) -> dict[str, float | None]:
    """The measures of one label.

    Args:
        values: the PET at the mask's voxels, NaN where it does not reach.
        whole: whether it reaches all of them, or nearly.
    """
    volume_ml = float(values.size) * _voxel_volume(grid) / 1000
    mean, highest = (_distribution(values)[name] for name in ("mean", "max"))
    return {
        "suv_max": None if highest is None else float(_own_values(mask, box, pet, grid).max(initial=highest)),
        "suv_mean": mean,
        "suv_peak": suv_peak(mask, pet, grid),
        "mtv_ml": volume_ml,
        "tlg": (mean * volume_ml if mean is not None else 0.0) if whole else None,
    }


def _own_values(mask: np.ndarray, box: Box, pet: sitk.Image, grid: Grid) -> np.ndarray:
    """The PET's voxels, as they are, whose centres lie in the mask's; none where they are those of the grid."""
    own = Grid.of(pet)
    if own.same_as(grid):
        return np.zeros(0)
    part = _part(grid, box)
    index = own.index(part.corners())
    first = np.maximum(np.ceil(index.min(axis=0)), 0).astype(int)
    size = np.minimum(np.floor(index.max(axis=0)) + 1, own.size).astype(int) - first
    if (size <= 0).any():
        return np.zeros(0)
    inside = sitk.GetImageFromArray(mask[box].astype(np.uint8))
    inside.SetOrigin(part.origin)
    inside.SetSpacing(part.spacing)
    inside.SetDirection(part.direction)
    there = voxels(resample(inside, own.part(first, size), nearest=True)) > 0
    here = tuple(slice(a, a + n) for a, n in zip(first[::-1], size[::-1], strict=True))
    return voxels(pet)[here][there].astype(np.float64)


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
