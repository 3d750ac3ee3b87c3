"""The results of one case, written: all of them or none, also when the process is told to stop meanwhile."""

import json
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk

from ..data.image import OutputFiles
from .card import Card
from .inputs import Inputs
from .outputs import Outputs, writing_threads
from .seg_nrrd import as_segmentation, is_segmentation_file
from .statistics import statistics

if TYPE_CHECKING:
    from .predictor import Prediction


MAPS = ("attention_fine", "attention_coarse", "attention_gradcam")


def write_results(
    files: OutputFiles, prediction: "Prediction", outputs: Outputs, *, inputs: Inputs, card: Card
) -> dict[str, Any]:
    """Writes every wanted result; the files appear when ``files`` is left.

    A map is computed when its turn comes, while those before it are still being written.

    Returns:
        The content of ``statistics.json``; empty if that is not wanted.
    """
    with _Writers(files, prediction.label.GetNumberOfPixels()) as writers:
        label = as_segmentation(prediction.label, card) if is_segmentation_file(outputs.label) else prediction.label
        writers.write(lambda: label, outputs.label)
        for name in MAPS:
            writers.write(lambda name=name: getattr(prediction, name), getattr(outputs, name))  # type: ignore[misc]
        writers.write(lambda: sitk.Compose(prediction.probabilities), outputs.probabilities)
        uncertainty = prediction.uncertainty if outputs.uncertainty or outputs.statistics else None
        if uncertainty:
            writers.write(lambda: uncertainty, outputs.uncertainty)
        if not outputs.statistics:
            return {}
        figures = statistics(
            prediction.label,
            inputs.images,
            card,
            uncertainty=uncertainty,
            notices=prediction.notices,
            pet_units=inputs.pet_units,
            reference=inputs.reference,
        )
        files.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", outputs.statistics)
        return figures


class _Writers:
    """Threads that write images; left when everything is written, or with the first error.

    Args:
        files: where to.
        voxels: of an image, see `writing_threads`.
    """

    def __init__(self, files: OutputFiles, voxels: int) -> None:
        self._files = files
        self._most = writing_threads(voxels)
        self._pool = ThreadPoolExecutor(self._most, "writing")
        self._writing: deque[Future[None]] = deque()

    def __enter__(self) -> "_Writers":
        return self

    def write(self, make: Callable[[], sitk.Image], path: Path | None) -> None:
        """Makes an image and leaves it to a thread; waits for one first where all are busy."""
        if path is None:
            return
        while len(self._writing) >= self._most:
            self._writing.popleft().result()
        self._writing.append(self._pool.submit(self._files.write_image, make(), path))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for writing in self._writing:
                writing.result()


class CancellableFiles(OutputFiles):
    """Output files that another thread can take back, as long as they have not appeared under their names."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._published = False

    def temporary(self, path: Path) -> Path:
        """As `OutputFiles.temporary`; waits for ever once the files were taken back."""
        with self._lock:
            return super().temporary(path)

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        with self._lock:
            super().__exit__(kind, *details)
            self._published = kind is None

    def take_back(self) -> bool:
        """Removes what is written so far and stops all further writing; False if the files have appeared already.

        The process is to end after it.
        """
        self._lock.acquire()
        if self._published:
            self._lock.release()
            return False
        self._remove_temporaries()
        return True
