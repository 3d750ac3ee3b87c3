"""How many cases may be held at a time: as many as the memory allows, whatever the number of cores."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk

from .archive import SourceCase

MEMORY_BUDGET = 1_200_000_000  # bytes of images held at a time, so that the process stays under 2 GB
BYTES_PER_VOXEL = 12  # an image as it is read (at most float64) and as float32


def case_bytes(case: SourceCase) -> int:
    """About how much memory a case takes while it is read, from the headers of its images."""
    total = 0
    for path in case.files:
        if path.is_dir():
            total += 4 * sum(file.stat().st_size for file in path.iterdir() if file.is_file())
            continue
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
            total += int(np.prod(reader.GetSize())) * BYTES_PER_VOXEL
        except RuntimeError:  # no image, or a broken one: reading it will say so
            continue
    return total


class Budget:
    """Lets threads go on while what they hold together stays within the memory allowed; one always may."""

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + size <= self._size)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()
