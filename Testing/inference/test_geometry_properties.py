"""What must hold for every grid: the mask lies where the tumour lies in space, however the images are stored."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from TeachFormerCore.data.grid import Grid
from TeachFormerCore.data.image import voxels
from TeachFormerCore.inference.predictor import Predictor

SIZE, SPACING = (30, 26, 22), (2.0, 2.5, 3.0)
CENTRE = np.array([12.0, -30.0, 250.0])
FEW = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
AXES = [
    "".join(letters) for names in itertools.permutations(("RL", "AP", "IS")) for letters in itertools.product(*names)
]


def by_threshold(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A network that calls SUV > 2 tumour."""
    pet = image[:, 1:2]
    return torch.cat([torch.zeros_like(pet), 40 * (pet - 0.4)], 1), torch.nn.functional.avg_pool3d(pet, 16), pet


@pytest.fixture
def predictor(tiny_model: Path) -> Predictor:
    made = Predictor(tiny_model, device="cpu", runtime="torch")
    made.runtime.network.forward_with_attention = by_threshold
    made.card["spacing"] = [2.0, 2.0, 2.0]
    return made


def scene(transform: sitk.Transform | None = None) -> dict[str, sitk.Image]:
    """CT and PET of a body with an asymmetric tumour; with a transform, everything is moved by it in space.

    The values are computed from formulas at each voxel's place, so nothing is interpolated.
    """
    grid = Grid(
        size=SIZE,
        spacing=SPACING,
        origin=tuple(CENTRE - (np.array(SIZE) - 1) / 2 * SPACING),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    index = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1)
    point = grid.point(index) - CENTRE
    x, y, z = point[..., 0], point[..., 1], point[..., 2]
    distance = np.sqrt(((x - 6) / 11) ** 2 + ((y + 4) / 8) ** 2 + ((z - 2 + x / 4) / 14) ** 2)
    values = {
        "PET": 4 / (1 + np.exp(10 * (distance - 1))),
        "CT": np.where(np.hypot(x, y) < 27, 50.0, -1000.0),
    }
    images = {}
    for name, array in values.items():
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0), np.float32))
        image.SetSpacing(grid.spacing)
        image.SetOrigin(grid.origin)
        if transform is not None:  # a rigid body takes its grid with it
            image.SetOrigin(transform.TransformPoint(grid.origin))
            image.SetDirection(transform.GetMatrix())
        images[name] = image
    return images


def places(label: sitk.Image) -> np.ndarray:
    """LPS millimetres of the mask's voxels ``(n, 3)``."""
    return Grid.of(label).point(np.argwhere(voxels(label))[:, ::-1])


@FEW
@given(axes=st.sampled_from(AXES), other=st.sampled_from(AXES))
def test_any_permutation_and_flip_gives_the_same_mask_in_space(predictor: Predictor, axes: str, other: str) -> None:
    """CT and PET may even be stored in different ways."""
    images = scene()
    plain = predictor.run(images).label
    turned = predictor.run(
        {"CT": sitk.DICOMOrient(images["CT"], axes), "PET": sitk.DICOMOrient(images["PET"], other)}
    ).label
    assert turned.GetSize() == sitk.DICOMOrient(images["CT"], axes).GetSize()
    np.testing.assert_array_equal(voxels(sitk.DICOMOrient(turned, "LPS")), voxels(plain))
    assert voxels(plain).sum() > 100


@FEW
@given(
    angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    shift=st.tuples(*[st.floats(-80, 80)] * 3),
)
def test_a_rigid_transform_takes_the_mask_along(
    predictor: Predictor, angles: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    """The mask of the moved images is the moved mask, within a voxel: in its middle, its extent and its volume."""
    transform = sitk.Euler3DTransform(CENTRE.tolist(), *angles, shift)
    plain, moved = places(predictor.run(scene()).label), places(predictor.run(scene(transform)).label)
    expected = np.array([transform.TransformPoint(place.tolist()) for place in plain])
    voxel = max(SPACING)
    assert np.linalg.norm(moved.mean(axis=0) - expected.mean(axis=0)) < voxel / 2
    assert np.abs(moved.min(axis=0) - expected.min(axis=0)).max() < 1.5 * voxel
    assert np.abs(moved.max(axis=0) - expected.max(axis=0)).max() < 1.5 * voxel
    assert len(moved) == pytest.approx(len(expected), rel=0.12)
    # Voxel by voxel: a place of one mask is no further than a voxel's diagonal from the other.
    gaps = np.linalg.norm(moved[:, None] - expected[None], axis=-1)
    assert max(gaps.min(axis=0).max(), gaps.min(axis=1).max()) <= np.linalg.norm(SPACING)


@FEW
@given(size=st.tuples(*[st.integers(20, 44)] * 3), spacing=st.tuples(*[st.floats(1.5, 4.0)] * 3))
def test_the_reference_s_voxels_do_not_move_the_mask(
    predictor: Predictor, size: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    """A CT of any voxel size around the tumour, a PET as it was: the volume in mm3 stays."""
    images = scene()
    reference = Grid(
        size=size,
        spacing=spacing,
        origin=tuple(CENTRE - (np.array(size) - 1) / 2 * spacing),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    if (np.array(reference.field_of_view_mm()) < 56).any():
        return  # it would cut the tumour
    ct = sitk.Resample(
        images["CT"], size, sitk.Transform(), sitk.sitkLinear, reference.origin, spacing, reference.direction, -1000.0
    )
    label = predictor.run({"CT": ct, "PET": images["PET"]}).label
    assert Grid.of(label).same_as(reference)
    volume = voxels(label).sum() * np.prod(spacing)
    expected = voxels(predictor.run(images).label).sum() * np.prod(SPACING)
    assert volume == pytest.approx(expected, rel=0.15)
