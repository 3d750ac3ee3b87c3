"""Exact symmetries: how many there are, that they form a group, and that maps of all sizes move alike."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from TeachFormerCore.data.symmetries import Symmetry, grid_symmetries

ANISOTROPIC = ((64, 48, 48), (3.0, 3.0, 3.0))


def keys(symmetries: tuple[Symmetry, ...]) -> set[bytes]:
    return {symmetry.matrix.tobytes() for symmetry in symmetries}


@pytest.mark.parametrize(
    ("size", "spacing", "both", "flips", "turns"),
    [
        (*ANISOTROPIC, 16, 8, 4),
        ((32, 32, 32), (3.0, 3.0, 3.0), 48, 8, 24),
        ((32, 32, 32), (3.0, 1.0, 1.0), 16, 8, 4),
        ((48, 48, 48), (3.0, 2.0, 1.0), 8, 8, 1),
        ((32, 32), (1.0, 1.0), 8, 4, 4),
        ((32, 48), (1.0, 1.0), 4, 4, 1),
    ],
)
def test_how_many_there_are(size: tuple, spacing: tuple, both: int, flips: int, turns: int) -> None:
    for count, options in ((both, (True, True)), (flips, (True, False)), (turns, (False, True)), (1, (False, False))):
        found = grid_symmetries(size, spacing, flips=options[0], quarter_turns=options[1])
        assert len(found) == len(keys(found)) == count
        assert (found[0].matrix == np.eye(len(size))).all()
        assert options[0] or all(symmetry.is_rotation for symmetry in found)


@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("size", [(64, 48, 48), (32, 32, 32)])
def test_they_are_a_group(size: tuple, flips: bool) -> None:
    found = grid_symmetries(size, (1.0, 1.0, 1.0), flips=flips, quarter_turns=True)
    products = {(a.matrix @ b.matrix).tobytes() for a in found for b in found}
    assert products == keys(found)
    assert {a.matrix.T.copy().tobytes() for a in found} == keys(found)  # the inverses


def test_a_voxel_goes_where_the_matrix_says() -> None:
    size = (4, 6, 6)
    for symmetry in grid_symmetries(size, (1.0, 1.0, 1.0), flips=True, quarter_turns=True):
        x = torch.zeros(1, *size)
        x[0, 1, 4, 2] = 1
        centre = (np.array(size) - 1) / 2
        expected = symmetry.matrix @ (np.array((1, 4, 2)) - centre) + centre
        moved = symmetry(x)
        assert moved.shape == x.shape
        assert tuple(moved[0].nonzero()[0].tolist()) == tuple(expected.round().astype(int))


def test_coarse_maps_move_with_the_image() -> None:
    """Pooling a moved image is moving the pooled one: exactly, since a mean over whole numbers is exact."""
    image = torch.randint(0, 100, (2, 64, 48, 48), generator=torch.Generator().manual_seed(0)).double()
    for symmetry in grid_symmetries(*ANISOTROPIC, flips=True, quarter_turns=True):
        assert torch.equal(F.avg_pool3d(symmetry(image), 16), symmetry(F.avg_pool3d(image, 16)))


def test_a_quarter_turn_in_the_plane_and_no_value_is_lost() -> None:
    image = torch.rand(2, 3, 8, 8)
    turned = Symmetry(order=(0, 2, 1), mirrored=(False, True, False))(image)
    assert torch.equal(turned, torch.rot90(image, 1, (2, 3)))
    assert turned.is_contiguous()
