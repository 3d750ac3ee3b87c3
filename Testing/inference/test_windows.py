"""Windows cover everything once blended: a voxelwise network must give what it gives on the whole image."""

import numpy as np
import pytest
import torch

from TeachFormerCore.inference.windows import gaussian_weight, linear_weights, predict_windows, window_corners


def voxelwise(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, coarse and fine of a network without context."""
    coarse = torch.nn.functional.avg_pool3d(image, 16)
    return torch.cat([-image, image], 1), coarse, -image


@pytest.mark.parametrize("size", [(40, 33, 32), (32, 32, 32), (70, 64, 33), (20, 40, 50)])
def test_blending_leaves_a_voxelwise_network_unchanged(size: tuple[int, ...]) -> None:
    image = torch.randn(1, *size)
    maps = predict_windows(voxelwise, image, window=(32, 32, 32))
    torch.testing.assert_close(maps.probabilities, torch.cat([-image, image]).softmax(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps.fine, image[0].abs(), atol=1e-5, rtol=1e-4)
    assert maps.coarse.shape == size


def test_an_image_smaller_than_the_window_is_surrounded_by_background() -> None:
    seen = []

    def watch(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen.append(image)
        return voxelwise(image)

    predict_windows(watch, torch.ones(1, 10, 32, 12), window=(32, 32, 32))
    assert [tuple(image.shape) for image in seen] == [(1, 1, 32, 32, 32)]
    assert seen[0].sum() == 10 * 32 * 12
    assert seen[0][0, 0, 11:21, :, 10:22].min() == 1


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_corners_reach_both_ends_and_overlap_enough(overlap: float) -> None:
    corners = sorted({corner[0] for corner in window_corners((100, 32, 32), (32, 32, 32), overlap)})
    assert corners[0] == 0
    assert corners[-1] == 68
    steps = [b - a for a, b in zip(corners, corners[1:], strict=False)]
    assert max(steps) <= 32 * (1 - overlap)


def test_progress_counts_windows_and_can_cancel() -> None:
    calls: list[tuple[int, int]] = []
    predict_windows(
        voxelwise, torch.zeros(1, 32, 32, 80), window=(32, 32, 32), on_windows=lambda *done: calls.append(done)
    )
    assert calls == [(2, 3), (3, 3)]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_windows(voxelwise, torch.zeros(1, 32, 32, 80), window=(32, 32, 32), on_windows=cancel)


def test_gaussian_weight_is_symmetric_and_positive() -> None:
    weight = gaussian_weight((8, 6, 4))
    assert weight.shape == (8, 6, 4)
    assert weight.min() > 0
    np.testing.assert_array_equal(weight, weight[::-1, ::-1, ::-1])


def test_numpy_and_torch_blend_alike() -> None:
    image = torch.randn(1, 40, 33, 32, generator=torch.Generator().manual_seed(0))

    def through_numpy(windows: np.ndarray) -> tuple[np.ndarray, ...]:
        assert isinstance(windows, np.ndarray)
        return tuple(values.numpy() for values in voxelwise(torch.from_numpy(windows)))

    ours = predict_windows(through_numpy, image.numpy(), window=(32, 32, 32))
    theirs = predict_windows(voxelwise, image, window=(32, 32, 32))
    for name in ("probabilities", "fine", "coarse"):
        array = getattr(ours, name)
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, getattr(theirs, name).numpy(), atol=2e-6)


@pytest.mark.parametrize(("source", "target"), [(9, 144), (2, 32), (1, 16), (3, 40), (5, 5)])
def test_linear_weights_are_those_of_pytorch(source: int, target: int) -> None:
    values = torch.randn(1, 1, source, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.interpolate(values, size=target, mode="linear", align_corners=False)
    np.testing.assert_allclose(values[0, 0].numpy() @ linear_weights(source, target), expected[0, 0].numpy(), atol=1e-6)


def test_coarse_maps_come_to_full_size_along_the_right_axes() -> None:
    coarse = np.random.default_rng(0).standard_normal((1, 1, 2, 3, 4)).astype(np.float32)

    def forward(windows: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.concatenate([windows, windows], 1), coarse, windows

    maps = predict_windows(forward, np.zeros((1, 32, 48, 64), np.float32), window=(32, 48, 64))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(np.abs(coarse)), size=(32, 48, 64), mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(maps.coarse, expected[0, 0].numpy(), atol=1e-5)
