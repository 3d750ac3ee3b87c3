"""Grad-CAM of the last decoder layer: which of its voxels speak for the labels.

Selvaraju et al. (2017), for segmentations as Vinogradova et al. (2020) have it: each channel of the layer is weighted
by the mean gradient of the labels' scores, summed over the voxels that have a label; what speaks against them is cut.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependencyError
from .card import Card
from .ladder import is_out_of_memory
from .runtimes.interface import volumetric, window_of
from .windows import predict_windows

if TYPE_CHECKING:
    import torch

    from ..networks import SegmentationNetwork

PURPOSE = "compute Grad-CAM, since the exported graphs of other runtimes have no gradients"


def check_installed() -> None:
    """Refuses Grad-CAM, before any work, where PyTorch is missing.

    Raises:
        MissingDependencyError: it is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            f"The Python package 'torch' is not installed. It is needed to {PURPOSE}: leave Grad-CAM away, or install "
            "torch (in Slicer, by the PyTorch extension)."
        )


def grad_cam(folder: Path, card: Card, image: np.ndarray, *, device: str = "cpu") -> np.ndarray:
    """Grad-CAM ``(z, y, x)``, at least 0, of an image ``(M, z, y, x)`` on the model's grid; all 0 without any label.

    The windows are those of the card, one at a time and run twice: the weights are the whole image's, and have to be
    known before a voxel can be summed.

    Args:
        folder: the model folder, whose safetensors weights are used whatever has computed the mask.
        device: where; the CPU if it is not PyTorch's, or its memory runs out.

    Raises:
        MissingDependencyError: PyTorch is not installed.
    """
    check_installed()
    from .model_folder import load_network

    network = load_network(folder, card).requires_grad_(False)
    places = [device, "cpu"] if device.startswith(("cuda", "mps")) else ["cpu"]
    for place in places[:-1]:
        try:
            return _weighted_sum(network.to(place), image, card["image_size"], place)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
    return _weighted_sum(network.to(places[-1]), image, card["image_size"], places[-1])


def _weighted_sum(
    network: "SegmentationNetwork", image: np.ndarray, image_size: Sequence[int], device: str
) -> np.ndarray:
    import torch

    channels: Any = 0.0

    def collect(windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        nonlocal channels
        with torch.enable_grad():
            logits, coarse, fine = network.forward_with_attention(windows.detach().requires_grad_())
            (gradient,) = torch.autograd.grad(labels_score(logits), fine)
        channels = channels + gradient.sum(dim=(0, *range(2, gradient.dim())))
        return logits.detach(), coarse.detach(), fine.detach()

    def combine(windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            logits, coarse, fine = network.forward_with_attention(windows)
            return logits, coarse, torch.einsum("c,bc...->b...", channels, fine).clamp_min(0)[:, None]

    passes: list[Any] = [collect, combine]
    for forward in passes:
        maps = predict_windows(
            volumetric(forward, len(image_size)),
            torch.from_numpy(image).to(device),
            window=window_of(image_size),
            batch=1,
        )
    return maps.fine.cpu().numpy()  # type: ignore[no-any-return]


def labels_score(logits: "torch.Tensor") -> "torch.Tensor":
    """How far the labels of ``(B, classes, *S)`` lie above the background, summed over the voxels that have one.

    The difference, since a softmax does not change when all logits are raised alike.
    """
    highest, label = logits.max(dim=1)
    return ((highest - logits[:, 0]) * (label > 0)).sum()
