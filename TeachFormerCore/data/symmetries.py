"""The exact symmetries of a patch: flips and quarter turns, which move voxels and interpolate nothing.

They change neither the size of a patch nor a distance in millimetres: axes change places only where their sizes and
their spacings are equal. A map at 1/16 of a patch whose sizes are multiples of 16 moves by the same symmetry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """Axes in another order, some of them mirrored afterwards.

    Attributes:
        order: which axis comes first, second, ...
        mirrored: which of the axes, in their new order, are flipped.
    """

    order: tuple[int, ...]
    mirrored: tuple[bool, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """``(..., *S)`` with its last axes moved; contiguous, a copy unless nothing moves."""
        first = x.dim() - len(self.order)
        moved = x.permute(*range(first), *(first + axis for axis in self.order))
        return moved.flip([first + axis for axis, flipped in enumerate(self.mirrored) if flipped]).contiguous()

    @property
    def matrix(self) -> np.ndarray:
        """The signed permutation matrix: -1 in a mirrored axis's row."""
        return np.eye(len(self.order), dtype=int)[list(self.order)] * np.where(self.mirrored, -1, 1)[:, None]

    @property
    def is_rotation(self) -> bool:
        """Whether it could be done to a body: no mirror image."""
        return round(float(np.linalg.det(self.matrix))) == 1


def grid_symmetries(
    size: Sequence[int], spacing: Sequence[float], *, flips: bool, quarter_turns: bool
) -> tuple[Symmetry, ...]:
    """All symmetries of a patch, a group, the identity first.

    Args:
        size: of the patch.
        spacing: mm per voxel along the same axes.
        flips: with mirror images, along every axis.
        quarter_turns: with turns by 90 degrees in the planes whose two sizes and spacings are equal.

    Returns:
        For 64 x 48 x 48 voxels of 3 mm: 16 with both, 8 with flips, 4 with quarter turns, 1 with neither.
    """
    extents = list(zip(size, spacing, strict=True))
    orders = [tuple(range(len(size)))]
    if quarter_turns:
        orders = [order for order in permutations(orders[0]) if [extents[axis] for axis in order] == extents]
    mirrorings = product((False, True), repeat=len(size))
    every = tuple(Symmetry(order=order, mirrored=mirrored) for mirrored, order in product(mirrorings, orders))
    if flips:
        return every
    if not quarter_turns:
        return every[:1]
    # What turns within a plane is left: nobody is put upside down about an axis that no turn reaches.
    alone = [extents.count(extent) == 1 for extent in extents]
    return tuple(s for s in every if s.is_rotation and not any(np.logical_and(s.mirrored, alone)))
