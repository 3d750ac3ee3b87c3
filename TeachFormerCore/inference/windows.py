"""Sliding windows: a network over an image larger than the size it was built for."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.layers import LINEAR_MODE

Forward = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
# A Gaussian's standard deviation as part of the window: its weight at the border is 1/300 of the centre's per axis.
GAUSSIAN_WIDTH = 0.148


@dataclass(frozen=True, kw_only=True)
class WindowedMaps:
    """A network's answer for a whole image ``(M, *S)``.

    Attributes:
        probabilities: softmax ``(classes, *S)``.
        fine: mean of |Q| over its channels ``(*S)``.
        coarse: mean of |P| over its channels, linearly brought to full resolution ``(*S)``.
    """

    probabilities: Tensor
    fine: Tensor
    coarse: Tensor


def predict_windows(
    forward: Forward,
    image: Tensor,
    *,
    window: Sequence[int],
    overlap: float = 0.25,
    batch: int = 2,
    on_windows: Callable[[int, int], None] = lambda done, total: None,
) -> WindowedMaps:
    """Runs windows over an image and blends them with Gaussian weights.

    An image smaller than the window is surrounded by 0, the normalised background.

    Args:
        forward: image ``(B, M, *window)`` -> logits, coarse P, fine Q, as ``forward_with_attention`` gives them.
        image: ``(M, *S)`` on the device that computes.
        window: size of a window.
        overlap: part of a window that the next one covers again at least, 0 <= overlap < 1.
        batch: windows per call of ``forward``.
        on_windows: told how many windows of how many are done; an exception it raises ends the work.
    """
    size = image.shape[1:]
    missing = [max(0, w - n) for w, n in zip(window, size, strict=True)]
    before = [extra // 2 for extra in missing]
    padding = [side for first, extra in zip(reversed(before), reversed(missing), strict=True)
               for side in (first, extra - first)]  # fmt: skip
    padded = F.pad(image, padding)
    corners = list(window_corners(padded.shape[1:], window, overlap))
    weight = gaussian_weight(window).to(image.device)

    sums: dict[str, Tensor] = {}
    total = torch.zeros(padded.shape[1:], device=image.device)
    for start in range(0, len(corners), batch):
        places = [
            (slice(None), *(slice(c, c + w) for c, w in zip(corner, window, strict=True)))
            for corner in corners[start : start + batch]
        ]
        logits, coarse, fine = forward(torch.stack([padded[place] for place in places]))
        maps = {
            "probabilities": logits.float().softmax(1),
            "fine": fine.float().abs().mean(1, keepdim=True),
            "coarse": _full_size(coarse.float().abs().mean(1, keepdim=True), window),
        }
        for name, values in maps.items():
            if name not in sums:
                sums[name] = torch.zeros(values.shape[1], *padded.shape[1:], device=image.device)
            for place, value in zip(places, values, strict=True):
                sums[name][place] += value * weight
        for place in places:
            total[place[1:]] += weight
        on_windows(min(start + batch, len(corners)), len(corners))

    crop = (slice(None), *(slice(b, b + n) for b, n in zip(before, size, strict=True)))
    blended = {name: (values / total)[crop] for name, values in sums.items()}
    return WindowedMaps(probabilities=blended["probabilities"], fine=blended["fine"][0], coarse=blended["coarse"][0])


def window_corners(size: Sequence[int], window: Sequence[int], overlap: float) -> Iterator[tuple[int, ...]]:
    """First voxels of the fewest windows that cover an image at least as large, evenly spread."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, not {overlap}.")
    starts = []
    for n, w in zip(size, window, strict=True):
        step = max(1, int(w * (1 - overlap)))
        count = -(-(n - w) // step) + 1
        starts.append([round(i * (n - w) / max(1, count - 1)) for i in range(count)])
    return itertools.product(*starts)


def gaussian_weight(window: Sequence[int]) -> Tensor:
    """Weights ``(*window)``, 1 at the centre, never 0."""
    weight = torch.ones(())
    for n in window:
        distance = (torch.arange(n) - (n - 1) / 2) / (GAUSSIAN_WIDTH * n)
        weight = weight.unsqueeze(-1) * torch.exp(-0.5 * distance**2)
    return weight.clamp_min(1e-6)


def _full_size(values: Tensor, window: Sequence[int]) -> Tensor:
    return F.interpolate(values, size=tuple(window), mode=LINEAR_MODE[len(window)], align_corners=False)
