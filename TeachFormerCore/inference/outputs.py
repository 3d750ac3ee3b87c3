"""Where the results of one case go; light, so that a process can be set up before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files of one case; None where a result is not wanted.

    Attributes:
        label: the mask, uint8.
        attention_fine: 0..1, where the last decoder layer looks.
        attention_coarse: 0..1, where the deep encoder looks.
        uncertainty: 0..1, normalised entropy.
        probabilities: one component per class, background first.
        statistics: a JSON file, see ``inference/statistics``.
    """

    label: Path
    attention_fine: Path | None = None
    attention_coarse: Path | None = None
    uncertainty: Path | None = None
    probabilities: Path | None = None
    statistics: Path | None = None

    def given(self) -> dict[str, Path]:
        """The files that are wanted, by name."""
        return {name: path for name, path in vars(self).items() if path}

    def check(self, inputs: Sequence[str]) -> None:
        """Refuses outputs that could not be written, or would overwrite an input or each other, before any work.

        Args:
            inputs: ``NAME=path`` each, as ``read_inputs`` takes them.

        Raises:
            InputError: naming the output.
        """
        from ..data.image import check_folder, check_writable

        taken = {Path(pair.partition("=")[2]).resolve() for pair in inputs}
        for name, path in self.given().items():
            if name == "statistics":
                check_folder(path)
            else:
                check_writable(path)
            if path.resolve() in taken:
                raise InputError(f"The output {path} is also an input or another output: give each a name of its own.")
            taken.add(path.resolve())
