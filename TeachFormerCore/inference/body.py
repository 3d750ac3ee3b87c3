"""The part of an image that is worth computing: the patient, without the air around."""

import numpy as np

# Of the normalised values: 10 HU above the CT window's lower end, SUV 0.1; an MR's air is exactly 0.
ABOVE_BACKGROUND = 0.02

Box = tuple[slice, slice, slice]


def body_box(image: np.ndarray, window: tuple[int, ...]) -> Box:
    """The smallest box ``(z, y, x)`` that holds all voxels of ``(M, z, y, x)`` above the background, 0.

    Along an axis it is no smaller than the window, as far as the image allows: a network is better shown real
    surroundings than padding. The whole image where there is nothing above the background.
    """
    body = np.zeros(image.shape[1:], bool)
    for channel in image:  # one at a time, and no floats: a large field has many voxels
        body |= channel > ABOVE_BACKGROUND
        body |= channel < -ABOVE_BACKGROUND
    box: list[slice] = []
    for axis, w in enumerate(window):
        n = int(image.shape[1 + axis])
        filled = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, n)
        missing = min(n, w) - (last - first)
        if missing > 0:
            first = min(max(0, first - missing // 2), n - min(n, w))
            last = first + min(n, w)
        box.append(slice(first, last))
    return tuple(box)  # type: ignore[return-value]
