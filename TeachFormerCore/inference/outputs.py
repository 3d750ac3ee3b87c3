"""Where the results of one case go; light, so that a process can be set up before anything heavy is imported."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

SMALL_IMAGE = 2**27  # voxels


def writing_threads(voxels: int) -> int:
    """How many maps of a reference image are written at a time.

    While one is written it is in memory twice, since it is read back: with two at a time and a third being made, these
    are 2.7 GB for the largest of the small images.
    """
    return 2 if voxels <= SMALL_IMAGE else 1


def spelling(name: str) -> str:
    """One spelling for all that some file system takes for the same name: A and a, and an umlaut's two codes."""
    return unicodedata.normalize("NFC", name.lower())


def place(path: Path) -> str:
    """Where a path leads, links followed, in one spelling: two paths that are told apart are never one file."""
    return spelling(os.path.realpath(path))


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files of one case; None where a result is not wanted.

    Attributes:
        label: the mask, uint8; named ``.seg.nrrd``, with the segments' names, colours and codes as Slicer has them.
        attention_fine: 0..1, where the last decoder layer looks.
        attention_coarse: 0..1, where the deep encoder looks.
        attention_gradcam: 0..1, what of the last decoder layer speaks for the labels; needs PyTorch.
        uncertainty: 0..1, normalised entropy.
        probabilities: one component per class, background first.
        statistics: a JSON file, see ``inference/statistics``.
    """

    label: Path
    attention_fine: Path | None = None
    attention_coarse: Path | None = None
    attention_gradcam: Path | None = None
    uncertainty: Path | None = None
    probabilities: Path | None = None
    statistics: Path | None = None

    def given(self) -> dict[str, Path]:
        """The files that are wanted, by name."""
        return {name: path for name, path in vars(self).items() if path}

    def check(self, inputs: Iterable[Path]) -> None:
        """Refuses outputs that could not be written, or would overwrite an input or each other, before any work.

        Args:
            inputs: the files that are read, as ``match_inputs`` gives them.

        Raises:
            InputError: naming the output.
            MissingDependencyError: Grad-CAM is wanted, and PyTorch is not installed.
        """
        from ..data.image import check_folder, check_writable
        from .seg_nrrd import is_segmentation_file

        taken = {place(path) for path in inputs}
        for name, path in self.given().items():
            if name == "statistics":
                check_folder(path)
            else:
                check_writable(path)
            if name != "label" and is_segmentation_file(path):
                raise InputError(f"{path} is the name of a segmentation, which only the mask is: use .nrrd or .nii.gz.")
            if place(path) in taken:
                raise InputError(f"The output {path} is also an input or another output: give each a name of its own.")
            taken.add(place(path))
        if self.attention_gradcam:
            from .grad_cam import check_installed

            check_installed()
