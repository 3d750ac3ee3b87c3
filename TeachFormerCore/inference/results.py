"""The results of one case, written: all of them or none, also when the process is told to stop meanwhile."""

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk

from ..data.image import OutputFiles
from .card import Card
from .inputs import Inputs
from .outputs import Outputs
from .seg_nrrd import as_segmentation, is_segmentation_file
from .statistics import statistics

if TYPE_CHECKING:
    from .predictor import Prediction


MAPS = ("attention_fine", "attention_coarse", "attention_gradcam")


def write_results(
    files: OutputFiles, prediction: "Prediction", outputs: Outputs, *, inputs: Inputs, card: Card
) -> dict[str, Any]:
    """Writes every wanted result; the files appear when ``files`` is left.

    Returns:
        The content of ``statistics.json``; empty if that is not wanted.
    """
    label = as_segmentation(prediction.label, card) if is_segmentation_file(outputs.label) else prediction.label
    files.write_image(label, outputs.label)
    # A map is computed when it is asked for, and only one is in memory at a time.
    for name in MAPS:
        if path := getattr(outputs, name):
            files.write_image(getattr(prediction, name), path)
    if outputs.probabilities:
        files.write_image(sitk.Compose(prediction.probabilities), outputs.probabilities)
    uncertainty = prediction.uncertainty if outputs.uncertainty or outputs.statistics else None
    if outputs.uncertainty and uncertainty:
        files.write_image(uncertainty, outputs.uncertainty)
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
