"""Views: replayable from (seed, epoch, case), image and label together, geometry by closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from TeachFormerCore.data.augmentation import (
    AugmentationConfig,
    PatchDraw,
    draw_patch,
    rotation_matrix,
    sample_patch,
)

PLAIN = PatchDraw(
    cuts=((0.0, 0.0),) * 3,
    on_foreground=True,
    anchor=0.0,
    place=(0.5, 0.5, 0.5),
    mirrored=(False, False, False),
    angles=(0.0, 0.0, 0.0),
    scale=1.0,
    gains=(1.0,),
    noise_seed=0,
    kept=(True,),
)


def draw(epoch: int = 0, case: str = "a", seed: int = 0) -> PatchDraw:
    return draw_patch(AugmentationConfig(), seed=seed, epoch=epoch, case=case, channels=2, spatial_dims=3)


def view(image: np.ndarray, label: np.ndarray, patch_draw: PatchDraw, size: int = 9, spacing=(1.0, 1.0, 1.0)):
    return sample_patch(image, label, patch_draw, patch_size=(size,) * 3, spacing=spacing, noise=0.0)


def one_voxel(at: tuple[int, int, int], shape: tuple[int, int, int] = (12, 14, 16)) -> tuple[np.ndarray, np.ndarray]:
    label = np.zeros(shape, np.uint8)
    label[at] = 1
    return label[None].astype(np.float32), label


def test_a_draw_depends_on_seed_epoch_and_case_only() -> None:
    assert draw() == draw()
    assert len({draw(), draw(epoch=1), draw(case="b"), draw(seed=1)}) == 4


def test_the_label_goes_where_the_image_goes() -> None:
    image, label = one_voxel((5, 7, 9))
    for epoch in range(30):
        anchored = replace(draw(epoch=epoch), cuts=PLAIN.cuts, on_foreground=True, scale=1.0, gains=(1.0,))
        sampled, sampled_label = view(image, label, anchored, size=17)
        mass = sampled[0].double()
        axes = torch.meshgrid(*[torch.arange(17.0, dtype=torch.float64)] * 3, indexing="ij")
        centre = [float((mass * axis).sum() / mass.sum()) for axis in axes]
        wanted = [place * 16 for place in anchored.place]
        assert centre == pytest.approx(wanted, abs=0.4)
        assert sampled_label.sum() <= 2  # nearest neighbour may miss or double one rotated voxel


def test_without_changes_the_view_is_the_image_around_the_anchor() -> None:
    random = np.random.default_rng(0)
    image = random.normal(size=(1, 12, 14, 16)).astype(np.float32)
    label = np.zeros((12, 14, 16), np.uint8)
    label[6, 7, 8] = 1
    sampled, sampled_label = view(image, label, PLAIN, size=5)
    np.testing.assert_allclose(sampled[0], image[0, 4:9, 5:10, 6:11], atol=1e-5)
    assert sampled_label[2, 2, 2] == 1


def test_outside_the_image_is_background() -> None:
    image, label = np.ones((1, 4, 4, 4), np.float32), np.ones((4, 4, 4), np.uint8)
    sampled, sampled_label = view(image, label, PLAIN, size=15)  # the anchor is voxel (0, 0, 0), in the middle
    assert sampled[0, 7:11, 7:11, 7:11].min() == pytest.approx(1.0, abs=1e-5)
    assert sampled[0, :7].abs().max() < 1e-6
    assert sampled_label.sum() == 64


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_stays_one_slice(axis: int) -> None:
    """Along an axis with one voxel, all but one plane of the patch is background."""
    shape = [12, 14, 16]
    shape[axis] = 1
    label = np.ones(shape, np.uint8)
    image, sampled = view(label[None].astype(np.float32), label, PLAIN, size=31)
    planes = sampled.movedim(axis, 0).flatten(1).any(1)
    assert planes.sum() == 1
    torch.testing.assert_close(image[0], sampled.float(), rtol=0, atol=1e-5)
    turned = replace(PLAIN, angles=tuple(np.radians((10.0, -15.0, 5.0))), scale=1.15)
    image, sampled = view(label[None].astype(np.float32), label, turned, size=31)
    assert 0 < float(image.sum()) < 1.7 * label.sum()  # 1.15**3 = 1.52, and 16 voxels tilted by 15 degrees


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_axes(axis: int) -> None:
    image, label = one_voxel((5, 7, 9))
    image[0][tuple(np.array((5, 7, 9)) + np.eye(3, dtype=int)[axis] * 2)] = 5.0  # two voxels further along the axis
    mirrored = tuple(number == axis for number in range(3))
    sampled, _ = view(image, label, replace(PLAIN, mirrored=mirrored))
    expected = np.array((4, 4, 4)) - np.eye(3, dtype=int)[axis] * 2
    assert sampled[0][tuple(expected)] == pytest.approx(5.0, abs=1e-4)


def test_rotation_by_90_degrees_and_orthogonality() -> None:
    quarter = rotation_matrix((np.pi / 2, 0.0, 0.0))
    np.testing.assert_allclose(quarter @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    matrix = rotation_matrix((0.3, -0.7, 1.1))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)


def test_rotation_is_rigid_in_millimetres() -> None:
    """Voxels of 1 x 1 x 3 mm: a quarter turn takes 3 mm along z (1 voxel) to 3 mm along y (3 voxels)."""
    image, label = one_voxel((6, 7, 8), shape=(13, 15, 17))
    image[0, 7, 7, 8] = 5.0
    turned = replace(PLAIN, angles=(0.0, 0.0, np.pi / 2))
    sampled, _ = view(image, label, turned, spacing=(3.0, 1.0, 1.0))
    brightest = np.unravel_index(int(sampled[0].argmax()), sampled[0].shape)
    assert sorted(np.abs(np.array(brightest) - 4)) == [0, 0, 3]
    assert abs(brightest[1] - 4) == 3


def test_scale_enlarges() -> None:
    image, label = one_voxel((6, 7, 8))
    image[0, 6, 7, 10] = 5.0
    sampled, _ = view(image, label, replace(PLAIN, scale=2.0), size=13)
    assert sampled[0, 6, 6, 10] == pytest.approx(5.0, abs=1e-4)  # 2 voxels away became 4


def test_cuts_remove_the_ends() -> None:
    image, label = np.ones((1, 10, 10, 10), np.float32), np.ones((10, 10, 10), np.uint8)
    cut = replace(PLAIN, cuts=((0.2, 0.3), (0.0, 0.0), (0.0, 0.0)))
    _, sampled_label = view(image, label, cut, size=21)
    assert sampled_label.sum() == 5 * 10 * 10


def test_position_is_no_cue() -> None:
    """Over many views the anchored lesion lies anywhere in the middle half, evenly."""
    places = np.array([draw(epoch=epoch).place for epoch in range(400)])
    assert places.min() >= 0.25
    assert places.max() <= 0.75
    np.testing.assert_allclose(places.mean(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(places.std(axis=0), 0.5 / np.sqrt(12), atol=0.02)


def test_intensity_changes_leave_the_background_alone_without_noise() -> None:
    image, label = one_voxel((6, 7, 8))
    sampled, _ = view(image, label, replace(PLAIN, gains=(1.1,)))
    assert sampled[0, 4, 4, 4] == pytest.approx(1.1, abs=1e-5)
    assert (sampled[0] == 0).sum() > 700
    shifted, _ = view(image, label, replace(PLAIN, gains=(1.1,), offsets=(0.25,)))
    assert shifted[0, 4, 4, 4] == pytest.approx(1.35, abs=1e-5)
    assert ((shifted[0] == 0) == (sampled[0] == 0)).all()


def test_two_dimensions() -> None:
    patch_draw = draw_patch(AugmentationConfig(), seed=0, epoch=0, case="a", channels=3, spatial_dims=2)
    image, label = np.ones((3, 40, 50), np.float32), np.ones((40, 50), np.uint8)
    sampled, sampled_label = sample_patch(image, label, patch_draw, patch_size=(32, 32), spacing=(1.0, 1.0), noise=0.02)
    assert sampled.shape == (3, 32, 32)
    assert sampled_label.shape == (32, 32)


def dropped(epoch: int, dropout: float, channels: int = 3) -> PatchDraw:
    config = AugmentationConfig(channel_dropout=dropout)
    return draw_patch(config, seed=0, epoch=epoch, case="a", channels=channels, spatial_dims=3)


def test_dropped_channels_replay_and_leave_the_view_alone() -> None:
    for epoch in range(20):
        with_dropout, without = dropped(epoch, 0.5), dropped(epoch, 0.0)
        assert with_dropout == dropped(epoch, 0.5)
        assert without.kept == (True, True, True)
        assert replace(with_dropout, kept=without.kept) == without


def test_channels_are_dropped_as_often_as_asked_and_never_all() -> None:
    """Of three channels at 0.5 a half is dropped, but in the eighth of the views that would lose all one stays."""
    kept = np.array([dropped(epoch, 0.5).kept for epoch in range(2000)])
    assert kept.any(axis=1).all()
    np.testing.assert_allclose(kept.mean(axis=0), 0.5 + 1 / 8 / 3, atol=0.04)
    assert len(np.unique(kept, axis=0)) == 7
    assert {dropped(epoch, 0.9, channels=1).kept for epoch in range(50)} == {(True,)}
