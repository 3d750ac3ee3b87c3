"""What a runtime is: a network made ready by one library on one device, called like the network itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

# Windows up to this size are given to a network two at a time: it is a fifth faster on processors, no more is gained.
SMALL_WINDOW = 96**3


class UnsuitableError(Exception):
    """A runtime that cannot serve this model, precision or device here; the message says why, and what to do."""


class Runtime(Protocol):
    """One library, device and precision; see ``array``, ``__call__`` and ``rungs``.

    Attributes:
        name: torch, openvino or onnx.
        device: e.g. ``cpu``, ``cuda:0``, ``intel:0``.
        precision: fp32, bf16 or fp16, in which most of the network is computed.
        bytes_per_voxel: of a window, that the network takes on the device while it computes; an estimate.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def bytes_per_voxel(self) -> int: ...

    def array(self, image: np.ndarray) -> Any:
        """The image ``(M, *S)`` float32 as the array that windows are cut from and blended in."""
        ...

    def __call__(self, windows: Any) -> tuple[Any, Any, Any]:
        """Windows ``(B, M, *window)`` -> logits ``(B, classes, *window)``, coarse P, fine Q: arrays of that kind."""
        ...

    def rungs(self, window: tuple[int, ...]) -> "list[Rung]":
        """Ways to compute, each with less memory than the one before; the first is the fastest."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One way to compute: where, and how much at a time.

    Attributes:
        words: as the end of the sentence "It was computed ...".
        window: size of a window.
        batch: windows at a time.
        keeps: device that holds the image and the blended maps.
    """

    words: str
    runtime: Runtime
    window: tuple[int, ...]
    batch: int
    keeps: str = "cpu"


def batch_for(window: Sequence[int]) -> int:
    """Windows at a time where memory is no concern."""
    return 2 if np.prod(window) <= SMALL_WINDOW else 1


def smaller_window(window: tuple[int, ...], divisor: int) -> tuple[int, ...]:
    """Half of the window along each axis, in multiples of what the network divides by and at least two of them."""
    return tuple(min(n, max(2 * divisor, -(-n // (2 * divisor)) * divisor)) for n in window)


class GraphRuntime:
    """What the runtimes of exported graphs share: they take NumPy arrays, and their window is fixed."""

    def array(self, image: np.ndarray) -> np.ndarray:
        """The image itself."""
        return image

    def rungs(self: Runtime, window: tuple[int, ...]) -> list[Rung]:
        """Several windows at a time, or one."""
        batches = sorted({batch_for(window), 1}, reverse=True)
        words = f"on {'the CPU' if self.device == 'cpu' else self.device}, %d window%s at a time"
        return [
            Rung(words=words % (batch, "s" * (batch > 1)), runtime=self, window=window, batch=batch)
            for batch in batches
        ]


def volumetric(runtime: Runtime, spatial_dims: int) -> Any:
    """The runtime as a function of 3D windows; a 2D network sees them slice by slice (windows of one slice)."""
    if spatial_dims == 3:
        return runtime
    return lambda windows: tuple(values[:, :, None] for values in runtime(windows[:, :, 0]))


def window_of(image_size: Sequence[int]) -> tuple[int, ...]:
    """The 3D window ``(z, y, x)`` of a card's ``image_size``."""
    return (1,) * (3 - len(image_size)) + tuple(int(n) for n in image_size)
