"""The box a user places: RAS millimetres outside, LPS inside, converted here and nowhere else."""

from dataclasses import dataclass

import numpy as np

from ..data.grid import Grid
from ..errors import InputError

# RAS -> LPS and back: the first two axes change sign.
LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])


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
        if len(numbers) != 6 or not np.isfinite(numbers).all():
            raise InputError(
                f"A region needs six numbers CX,CY,CZ,RX,RY,RZ (centre and half-size in mm, RAS), not {len(numbers)}."
                + (" A rotated box cannot be used: make it axis-aligned." if len(numbers) == 15 else "")
            )
        centre, half_size = np.array(numbers[:3]) * LPS_FROM_RAS, numbers[3:]
        if min(half_size) <= 0:
            raise InputError(f"The region's half-sizes must be positive, they are {half_size} mm.")
        return cls(centre=tuple(centre.tolist()), half_size=tuple(half_size))  # type: ignore[arg-type]

    def corners(self) -> np.ndarray:
        """``(8, 3)`` corners in LPS millimetres."""
        signs = np.array(np.meshgrid(*[(-1, 1)] * 3, indexing="ij")).reshape(3, 8).T
        return np.array(self.centre) + signs * np.array(self.half_size)

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


def parse_region(text: str) -> Region:
    """The region of ``CX,CY,CZ,RX,RY,RZ`` (RAS millimetres), as ``--region-ras`` gives it.

    Raises:
        InputError: not six numbers.
    """
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"The region '{text}' must be six numbers CX,CY,CZ,RX,RY,RZ in mm.") from error
    return Region.from_ras(numbers)
