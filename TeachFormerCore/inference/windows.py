"""Sliding windows: a network over an image larger than the size it was built for.

Arrays are NumPy's or PyTorch's, whichever the runtime computes with: one code for both, and torch is never imported.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor
Forward = Callable[[Array], tuple[Array, Array, Array]]
# A Gaussian's standard deviation as part of the window: its weight at the border is 1/300 of the centre's per axis.
GAUSSIAN_WIDTH = 0.148


@dataclass(frozen=True, kw_only=True)
class WindowedMaps:
    """A network's answer for a whole image ``(M, *S)``, float32, arrays of the image's library.

    Attributes:
        probabilities: softmax ``(classes, *S)``.
        fine: mean of |Q| over its channels ``(*S)``.
        coarse: mean of |P| over its channels, linearly brought to full resolution ``(*S)``.
    """

    probabilities: Array
    fine: Array
    coarse: Array


def predict_windows(
    forward: Forward,
    image: Array,
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
        image: ``(M, *S)``; for a tensor, everything is computed and kept on its device.
        window: size of a window.
        overlap: part of a window that the next one covers again at least, 0 <= overlap < 1.
        batch: windows per call of ``forward``.
        on_windows: told how many windows of how many are done; an exception it raises ends the work.
    """
    size = image.shape[1:]
    before = [max(0, w - n) // 2 for w, n in zip(window, size, strict=True)]
    inside = (slice(None), *(slice(b, b + n) for b, n in zip(before, size, strict=True)))
    if any(n < w for n, w in zip(size, window, strict=True)):
        padded = _zeros(image, (image.shape[0], *(max(n, w) for n, w in zip(size, window, strict=True))))
        padded[inside] = image
    else:
        padded = image

    corners = list(window_corners(padded.shape[1:], window, overlap))
    weight = _like(image, gaussian_weight(window))
    sums: list[Array] = []
    for start in range(0, len(corners), batch):
        places = [
            (slice(None), *(slice(c, c + w) for c, w in zip(corner, window, strict=True)))
            for corner in corners[start : start + batch]
        ]
        windows = _zeros(image, (len(places), image.shape[0], *window))
        for one, place in enumerate(places):
            windows[one] = padded[place]
        maps = _to_blend(*forward(windows), window)
        on_windows(min(start + batch, len(corners)), len(corners))
        if len(corners) == 1:  # nothing to blend
            sums = [values[0] for values in maps]
            break
        if not sums:
            sums = [_zeros(image, (values.shape[1], *padded.shape[1:])) for values in maps]
        for total, values in zip(sums, maps, strict=True):
            for one, place in enumerate(places):
                total[place] += values[one] * weight
    if len(corners) > 1:
        weights = _total_weight(image, padded.shape[1:], window, corners)
        for total in sums:
            total /= weights
    probabilities, fine, coarse = (total[inside] for total in sums)
    return WindowedMaps(probabilities=probabilities, fine=fine[0], coarse=coarse[0])


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


def gaussian_weight(window: Sequence[int]) -> np.ndarray:
    """Weights ``(*window)`` float32, 1 at the centre, never 0; the product of one factor per axis."""
    weight = np.ones(())
    for n in window:
        weight = weight[..., None] * _gaussian(n)
    return weight.astype(np.float32)


def _gaussian(n: int) -> np.ndarray:
    distance = (np.arange(n) - (n - 1) / 2) / (GAUSSIAN_WIDTH * n)
    return np.exp(-0.5 * distance**2)


def _total_weight(
    image: Array, size: Sequence[int], window: Sequence[int], corners: Sequence[tuple[int, ...]]
) -> Array:
    """The weights of all windows, summed ``(*size)``; a product per axis, since the corners form a grid."""
    total = _like(image, np.ones((), np.float32))
    for axis, (n, w) in enumerate(zip(size, window, strict=True)):
        line = np.zeros(n)
        for start in {corner[axis] for corner in corners}:
            line[start : start + w] += _gaussian(w)
        total = total[..., None] * _like(image, line.astype(np.float32))
    return total


def _to_blend(logits: Array, coarse: Array, fine: Array, window: Sequence[int]) -> tuple[Array, Array, Array]:
    """Probabilities, and fine and coarse attention with one channel, each ``(B, C, *window)`` float32."""
    library = _library(logits)
    logits = _float32(logits)
    probabilities = library.exp(logits - library.amax(logits, 1)[:, None])
    probabilities /= probabilities.sum(1)[:, None]
    fine, coarse = (_float32(abs(values)).mean(1)[:, None] for values in (fine, coarse))
    # One axis at a time: the product of the first spatial axis goes to the end, so that all of them come round.
    for n, m in zip(window, coarse.shape[2:], strict=True):
        coarse = library.tensordot(coarse, _like(coarse, linear_weights(m, n)), ([2], [0]))
    return probabilities, fine, coarse


def linear_weights(source: int, target: int) -> np.ndarray:
    """Matrix ``(source, target)`` of linear interpolation between voxel centres, constant beyond the outer ones."""
    place = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.maximum(0, 1 - np.abs(place - np.arange(source)[:, None])).astype(np.float32)


def _library(array: Array) -> Any:
    return np if isinstance(array, np.ndarray) else sys.modules["torch"]


def _zeros(like: Array, shape: tuple[int, ...]) -> Array:
    return np.zeros(shape, np.float32) if isinstance(like, np.ndarray) else like.new_zeros(shape)


def _like(like: Array, array: np.ndarray) -> Array:
    return array if isinstance(like, np.ndarray) else sys.modules["torch"].from_numpy(array).to(like.device)


def _float32(array: Array) -> Array:
    return array.astype(np.float32, copy=False) if isinstance(array, np.ndarray) else array.float()
