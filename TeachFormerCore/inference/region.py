"""The box a user places: RAS millimetres outside, LPS inside, converted here and nowhere else."""

from dataclasses import dataclass

import numpy as np

from ..data.grid import Grid
from ..errors import InputError

# RAS -> LPS and back: the first two axes change sign.
LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])
PROBES = 64  # points along an axis at which the share of a space within another is measured


@dataclass(frozen=True, kw_only=True)
class Region:
    """An axis-aligned box: centre and half-size in millimetres, LPS."""

    centre: tuple[float, float, float]
    half_size: tuple[float, float, float]

    @classmethod
    def from_ras(cls, numbers: tuple[float, ...]) -> "Region":
        """The box of six numbers CX, CY, CZ, RX, RY, RZ in RAS: centre and half-size in mm.

        Raises:
            InputError: not six finite numbers, or a half-size that is not positive.
        """
        meant = "CX,CY,CZ,RX,RY,RZ (centre and half-size in mm, RAS)"
        if len(numbers) != 6:
            raise InputError(
                f"A region needs six numbers {meant}, not {len(numbers)}."
                + (" A rotated box cannot be used: make it axis-aligned." if len(numbers) == 15 else "")
            )
        if not np.isfinite(numbers).all():
            raise InputError(f"A region needs six finite numbers {meant}, not {','.join(map(str, numbers))}.")
        centre, half_size = np.array(numbers[:3]) * LPS_FROM_RAS, numbers[3:]
        if min(half_size) <= 0:
            raise InputError(f"The region's half-sizes must be positive, they are {half_size} mm.")
        return cls(centre=tuple(centre.tolist()), half_size=tuple(half_size))  # type: ignore[arg-type]

    def corners(self) -> np.ndarray:
        """``(8, 3)`` corners in LPS millimetres."""
        signs = np.array(np.meshgrid(*[(-1, 1)] * 3, indexing="ij")).reshape(3, 8).T
        return np.array(self.centre) + signs * np.array(self.half_size)

    def share_within(self, grid: Grid) -> float:
        """Which part of the box, 0..1, lies in a grid's field of view; within one in `PROBES` along each axis."""
        steps = np.array(self.half_size) * 2 / PROBES
        first = np.array(self.centre) - self.half_size + steps / 2
        probes = np.arange(PROBES)
        return _share(first + _lattice([probes] * 3) * steps, grid)

    def start_and_size(self, grid: Grid) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First voxel and size (x, y, z) of the part of a grid that covers the box.

        Raises:
            InputError: the box lies outside the image.
        """
        index = grid.index(self.corners())
        # A voxel belongs to the box where their extents overlap; a hair's breadth of rounding does not count.
        first = np.maximum(np.floor(index.min(axis=0) + 0.5 + 1e-6), 0).astype(int)
        last = np.minimum(np.ceil(index.max(axis=0) - 0.5 - 1e-6), np.array(grid.size) - 1).astype(int)
        if (last < first).any():
            low, high = (bound * LPS_FROM_RAS for bound in grid.bounds())
            low, high = np.minimum(low, high), np.maximum(low, high)
            extent = ", ".join(f"{a:.0f}..{b:.0f}" for a, b in zip(low, high, strict=True))
            raise InputError(f"The region lies outside the image, which covers {extent} mm (R, A, S): move the box.")
        return tuple(first.tolist()), tuple((last - first + 1).tolist())


def region_notices(region: Region, grid: Grid, label: np.ndarray) -> list[str]:
    """What a user should know of the box: that part of it lies outside the image, that the result reaches its wall.

    Args:
        grid: the whole image's.
        label: what was found ``(z, y, x)``, on that grid.
    """
    notices = []
    if inside := as_percent(region.share_within(grid)):
        notices.append(f"Of the region's box, {inside} lies inside the image: the rest was not computed.")
    start, size = region.start_and_size(grid)
    box = tuple(slice(a, a + n) for a, n in zip(start[::-1], size[::-1], strict=True))
    for axis, (part, length) in enumerate(zip(box, label.shape, strict=True)):
        layers = np.moveaxis(label[box], axis, 0)
        # The image's own wall is no choice of the user's.
        if (part.start > 0 and layers[0].any()) or (part.stop < length and layers[-1].any()):
            notices.append(
                "What was segmented reaches the wall of the region's box and may go on beyond it: move or enlarge the "
                "box."
            )
            break
    return notices


def share_covered(grid: Grid, by: Grid) -> float:
    """Which part of a grid's field of view, 0..1, lies in that of another; within one in `PROBES` along each axis."""
    return _share(grid.point(_lattice([(np.arange(PROBES) + 0.5) * n / PROBES - 0.5 for n in grid.size])), by)


def _lattice(axes: list[np.ndarray]) -> np.ndarray:
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _share(points: np.ndarray, grid: Grid) -> float:
    """Which part of points in LPS millimetres lies in a grid's field of view."""
    index = grid.index(points)
    # A hair's breadth of rounding does not count.
    return float(((index > -0.5 - 1e-6) & (index < np.array(grid.size) - 0.5 + 1e-6)).all(axis=1).mean())


def as_percent(share: float) -> str | None:
    """A share as it is told, e.g. ``43 %``; None where there is nothing to tell, since all or nearly all is meant."""
    if share >= 0.995:
        return None
    return f"{100 * share:.0f} %" if share >= 0.005 else "less than 1 %"


def parse_region(text: str) -> Region:
    """The region of ``CX,CY,CZ,RX,RY,RZ`` (RAS millimetres), as ``--region-ras`` gives it.

    Raises:
        InputError: not six finite numbers, or a half-size that is not positive.
    """
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"The region '{text}' must be six numbers CX,CY,CZ,RX,RY,RZ in mm.") from error
    return Region.from_ras(numbers)
