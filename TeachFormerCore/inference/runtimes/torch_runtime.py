"""PyTorch: every network on every device; in fp32 it is what the other runtimes are measured against."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...devices import choose_device, has_fast_bf16
from ..card import Card
from ..model_folder import load_network
from .interface import Rung, UnsuitableError, batch_for, smaller_window

if TYPE_CHECKING:
    from ...networks import SegmentationNetwork

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# A network holds about this many maps of the size of its finest one while it computes (measured for S1: 10).
MAPS_AT_ONCE = 12


@dataclass(frozen=True, kw_only=True)
class TorchRuntime:
    """A network on a device.

    Attributes:
        network: in eval mode.
        device: that computes.
        precision: fp32, or bf16 or fp16 by autocast.
        bytes_per_voxel: see `Runtime`.
        keep: whether image and blended maps stay on the device; else they are on the CPU.
    """

    network: "SegmentationNetwork"
    device: str
    precision: str
    bytes_per_voxel: int
    keep: bool = True
    name: str = "torch"

    def array(self, image: np.ndarray) -> torch.Tensor:
        """The image as a tensor."""
        return torch.from_numpy(image).to(self.device if self.keep else "cpu")

    def __call__(self, windows: torch.Tensor) -> tuple[Any, Any, Any]:
        """Logits, coarse P and fine Q; both with one channel where they leave the device."""
        kind = self.device.partition(":")[0]
        with torch.inference_mode(), torch.autocast(kind, TYPES[self.precision], enabled=self.precision != "fp32"):
            logits, coarse, fine = self.network.forward_with_attention(windows.to(self.device))
            if self.keep:
                return logits, coarse, fine
            coarse, fine = (values.float().abs().mean(1, keepdim=True) for values in (coarse, fine))
            return tuple(values.float().cpu() for values in (logits, coarse, fine))  # type: ignore[return-value]

    def rungs(self, window: tuple[int, ...]) -> list[Rung]:
        """On a GPU: all of it there, windows there and blending on the CPU, smaller windows."""
        batch, small = batch_for(window), smaller_window(window, self.network.size_divisor)
        here = f"on {self.device}"
        rungs = [Rung(words=here, runtime=self, window=window, batch=batch, keeps=self.device)]
        if self.device == "cpu":
            return [*rungs, Rung(words="on the CPU, in smaller windows", runtime=self, window=small, batch=1)]
        outside = replace(self, keep=False)
        return [
            *rungs,
            Rung(words=f"{here}, blended on the CPU", runtime=outside, window=window, batch=1),
            Rung(words=f"{here}, in smaller windows blended on the CPU", runtime=outside, window=small, batch=1),
        ]


def open_runtime(folder: Path, card: Card, device: str, precision: str) -> TorchRuntime:
    """The network of a model folder on a device.

    Raises:
        UnsuitableError: the device has no fast way to compute in that precision.
        InputError: the device does not work here, or the weights cannot be used.
    """
    place = choose_device(device)
    if precision == "bf16" and not has_fast_bf16(place):
        raise UnsuitableError(f"{device} has no native bfloat16.")
    if precision == "fp16" and (place.type != "cuda" or has_fast_bf16(place)):
        raise UnsuitableError(f"float16 is for GPUs without bfloat16, which {device} is not.")
    network = load_network(folder, card).to(place)
    return TorchRuntime(
        network=network,
        device=str(place),
        precision=precision,
        bytes_per_voxel=MAPS_AT_ONCE * _fine_channels(network) * TYPES[precision].itemsize,
    )


def _fine_channels(network: "SegmentationNetwork") -> int:
    """Channels of the finest map, from a run over the smallest image."""
    place = next(network.parameters()).device
    size = (2 * network.size_divisor,) * network.spatial_dims
    with torch.inference_mode():
        return network.forward_with_attention(torch.zeros(1, network.in_channels, *size, device=place))[2].shape[1]
