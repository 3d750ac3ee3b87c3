"""How much memory a case will take, told before it is computed; an estimate, with the ladder behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ..devices import free_memory
from .outputs import writing_threads
from .runtimes.interface import Rung

FLOAT = 4  # bytes
# A part of what is free is left alone: other programs breathe, and the estimate is one.
USABLE = 0.9


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What one rung needs.

    Attributes:
        rung: how it is computed.
        network: bytes on the runtime's device while a batch of windows is computed.
        blending: bytes where the rung keeps the image, its windows and the blended maps.
        results: bytes on the CPU for the mask and the maps on the reference's grid that are made and written at a time.
    """

    rung: Rung
    network: int
    blending: int
    results: int

    def computing(self) -> dict[str, int]:
        """Bytes per device while the network runs."""
        bytes_ = dict.fromkeys(("cpu", self.rung.runtime.device), 0)
        bytes_[self.rung.runtime.device] += self.network
        bytes_[self.rung.keeps] += self.blending
        return bytes_

    def needs(self) -> dict[str, int]:
        """Bytes per device, results included."""
        bytes_ = self.computing()
        # Maps are placed when the network is done; the blended maps stay.
        return bytes_ | {"cpu": max(bytes_["cpu"], self.results + self.blending)}

    def fits(self) -> bool:
        """Whether there is room for the network now; unknown counts as yes.

        The results need the same on every rung, so that they say nothing for or against one.
        """
        return all(
            (free := free_memory(device)) is None or bytes_ <= USABLE * free
            for device, bytes_ in self.computing().items()
        )

    def __str__(self) -> str:
        parts = [f"{bytes_ / 1e9:.2f} GB on {device}" for device, bytes_ in self.needs().items()]
        return f"needs about {' and '.join(parts)}, besides the images and the program"


def plan_memory(
    rung: Rung, *, image: Sequence[int], channels: int, classes: int, reference: Sequence[int]
) -> MemoryPlan:
    """The plan of a rung.

    Args:
        image: size ``(z, y, x)`` on the model's grid.
        channels: M, of the image.
        classes: background included.
        reference: size of the image whose grid the results have.
    """
    window = rung.batch * prod(rung.window)
    whole = prod(max(n, w) for n, w in zip(image, rung.window, strict=True))
    maps = channels + classes + 2  # image, probabilities, fine and coarse attention
    # Of a window: its copy of the image, the maps, and as much again for what is computed from them.
    return MemoryPlan(
        rung=rung,
        network=window * rung.runtime.bytes_per_voxel,
        blending=FLOAT * (whole * maps + (whole if whole > prod(rung.window) else 0) + 2 * window * maps),
        results=(1 + FLOAT * (1 + 2 * writing_threads(prod(reference)))) * prod(reference),
    )
