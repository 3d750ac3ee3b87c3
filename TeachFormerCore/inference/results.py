"""The results of one case, written: all of them or none, also when the process is told to stop meanwhile."""

import json
import threading
from pathlib import Path

import SimpleITK as sitk

from ..data.image import OutputFiles
from .card import Card
from .inputs import Inputs
from .outputs import Outputs
from .predictor import Prediction
from .statistics import statistics


def write_results(files: OutputFiles, prediction: Prediction, outputs: Outputs, *, inputs: Inputs, card: Card) -> None:
    """Writes every wanted result; the files appear when ``files`` is left."""
    files.write_image(prediction.label, outputs.label)
    for image, path in (
        (prediction.attention_fine, outputs.attention_fine),
        (prediction.attention_coarse, outputs.attention_coarse),
        (prediction.uncertainty, outputs.uncertainty),
    ):
        if path:
            files.write_image(image, path)
    if outputs.probabilities:
        files.write_image(sitk.Compose(prediction.probabilities), outputs.probabilities)
    if outputs.statistics:
        figures = statistics(
            prediction.label,
            inputs.images,
            card,
            uncertainty=prediction.uncertainty,
            notices=prediction.notices,
            pet_units=inputs.pet_units,
            reference=inputs.reference,
        )
        files.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", outputs.statistics)


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
        for temporary, _path in self._pending:
            temporary.unlink(missing_ok=True)
        return True
