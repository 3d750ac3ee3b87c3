"""The one worker behind Slicer's CLI module, its GUI and batches: one case per process, told about in Slicer's words.

On stdout, each line flushed: ``<filter-start>``, ``<filter-progress>`` 0..1, ``<filter-comment>``, ``<filter-end>`` and
plain sentences. Nothing on stderr, which Slicer shows as an error: what libraries write there goes to stdout too.
"""

import contextlib
import html
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EXIT_CANCELLED, InputError, TeachFormerError, as_teachformer_error
from .cancellation import Cancellation
from .outputs import Outputs

NAME = "TeachFormer"
FOURTH = "channel4"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case.

    Attributes:
        inputs: ``NAME=path`` each, see `name_channels`.
        region_ras: ``CX,CY,CZ,RX,RY,RZ`` in mm, or None for the whole image.
    """

    inputs: tuple[str, ...]
    outputs: Outputs
    model: str | None = None
    region_ras: str | None = None
    pet_units: str = "suv"
    suv_factor: float | None = None
    device: str = "auto"
    runtime: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What goes into the error file: the cause, what to do about it, the underlying error, the exit code."""

    cause: str
    fix: str
    original: str
    exit_code: int

    @property
    def message(self) -> str:
        """The whole sentence."""
        return f"{self.cause}: {self.fix}" if self.fix else self.cause


def run_segmentation(job: Job, *, result_file: Path | None = None, error_file: Path | None = None) -> int:
    """Segments one case in this process, its main thread; every output appears, or none.

    Args:
        result_file: JSON {exit_code, model, version, device, notices, outputs {name: path}, seconds}; appears together
            with the outputs.
        error_file: JSON {cause, fix, original, exit_code}, on an error only.

    Returns:
        The exit code: 0 done, 2 input, 3 install, 4 internal. A SIGTERM or SIGINT ends the process itself, with 130.
    """
    with _everything_on_stdout(), Cancellation() as cancellation:
        try:
            _segment(job, result_file, cancellation)
            return 0
        except BrokenPipeError:  # nobody listens any more
            return EXIT_CANCELLED
        except Exception as error:
            failure = explain(error)
        with contextlib.suppress(BrokenPipeError):
            print(f"error: {failure.message}", flush=True)
            if failure.exit_code == TeachFormerError.exit_code:
                print(failure.original, flush=True)
        if error_file:
            _write_failure(failure, error_file)
        return failure.exit_code


def _segment(job: Job, result_file: Path | None, cancellation: Cancellation) -> None:
    start = time.monotonic()
    progress = SlicerProgress()
    progress.start("Reading images")
    # What the user gave is judged before torch is imported, which takes seconds.
    from .inputs import read_inputs
    from .model_folder import find_model, read_card
    from .region import parse_region

    region = parse_region(job.region_ras) if job.region_ras else None
    job.outputs.check([*job.inputs, f"result={result_file}"] if result_file else job.inputs)
    card = read_card(find_model(job.model))
    pairs = name_channels(job.inputs, card)
    inputs = read_inputs(pairs, card, job.pet_units, job.suv_factor)
    progress.at(0.05, "Loading the model")
    from .predictor import Predictor
    from .results import CancellableFiles, write_results

    predictor = Predictor(job.model, device=job.device, runtime=job.runtime)
    progress.at(0.1, f"Segmenting with {card['name']} on {predictor.device}")
    prediction = predictor.run(inputs.images, region=region, on_progress=lambda part: progress.at(0.1 + 0.8 * part))
    for notice in prediction.notices:
        print(f"note: {notice}", flush=True)
    progress.at(0.9, "Writing")
    cancellation.files = files = CancellableFiles()
    with files:
        write_results(files, prediction, job.outputs, inputs=inputs, card=card)
        if result_file:
            result = {
                "exit_code": 0,
                "model": card["name"],
                "version": card["version"],
                "device": str(predictor.device),
                "notices": list(prediction.notices),
                "outputs": {name: str(path) for name, path in job.outputs.given().items()},
                "seconds": time.monotonic() - start,
            }
            files.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", result_file)
    progress.end()


def name_channels(pairs: Sequence[str], card: Mapping[str, Any]) -> list[str]:
    """The pairs with the slots of Slicer's module replaced by the card's channel names.

    ``channel4`` is the model's fourth channel. A modality (CT, PET, MR) is the channel of that modality among the first
    three, so that a model with two MR channels can be served; where that is not one channel, ``match_inputs`` decides.

    Raises:
        InputError: ``channel4`` for a model with fewer channels.
    """
    names = [channel["name"] for channel in card["channels"]]
    known = {name.lower() for name in names}
    result = []
    for pair in pairs:
        slot, _, path = pair.partition("=")
        if slot == FOURTH and FOURTH not in known:
            if len(names) < 4:
                raise InputError(
                    f"The model {card['name']} has no fourth channel, only {', '.join(names)}: leave {FOURTH} empty."
                )
            slot = names[3]
        elif slot.lower() not in known:
            fitting = [channel["name"] for channel in card["channels"][:3] if channel["modality"] == slot.upper()]
            slot = fitting[0] if len(fitting) == 1 else slot
        result.append(f"{slot}={path}")
    return result


def explain(error: Exception) -> Failure:
    """Any error as cause, remedy and exit code; no words of the original are lost."""
    original = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if isinstance(error, TeachFormerError):
        cause = error.__cause__
        original = f"{type(cause).__name__}: {cause}" if cause else ""
    told = as_teachformer_error(error)
    cause_words, fix = split_message(str(told))
    return Failure(cause=cause_words, fix=fix, original=original, exit_code=told.exit_code)


def split_message(message: str) -> tuple[str, str]:
    """Cause and remedy of a message "cause: remedy": the two sides of its first colon outside parentheses.

    Joined by ``": "`` they are the message again; without such a colon it is all cause.
    """
    depth = 0
    for place, letter in enumerate(message):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and message.startswith(": ", place):
            return message[:place], message[place + 2 :]
    return message, ""


class SlicerProgress:
    """Slicer's progress lines on stdout; the part done never goes back."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._part = -1.0

    def start(self, comment: str) -> None:
        """Announces the work."""
        text = html.escape(comment, quote=False)
        self._line(
            f"<filter-start><filter-name>{NAME}</filter-name><filter-comment>{text}</filter-comment></filter-start>"
        )
        self.at(0.0)

    def at(self, part: float, comment: str = "") -> None:
        """The part done, 0..1, and what comes next."""
        if part >= self._part + 0.005:
            self._part = part
            self._line(f"<filter-progress>{part:.3f}</filter-progress>")
        if comment:
            self._line(f"<filter-comment>{html.escape(comment, quote=False)}</filter-comment>")

    def end(self) -> None:
        """All is done and written."""
        self.at(1.0)
        seconds = time.monotonic() - self._start
        self._line(
            f"<filter-end><filter-name>{NAME}</filter-name><filter-time>{seconds:.2f}</filter-time></filter-end>"
        )

    def _line(self, text: str) -> None:
        print(text, flush=True)


@contextlib.contextmanager
def _everything_on_stdout() -> Iterator[None]:
    """Sends stderr, also that of C++ libraries, to stdout; and prints what the console's encoding lacks as escapes."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = os.dup(2)
    os.dup2(1, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def _write_failure(failure: Failure, file: Path) -> None:
    """Writes the error file whole; a failure to do so is said and changes no exit code."""
    building = file.with_name(f".teachformer-{os.getpid()}-{file.name}")
    try:
        building.write_text(json.dumps(vars(failure), indent=1) + "\n", encoding="utf-8")
        os.replace(building, file)
    except OSError as error:
        building.unlink(missing_ok=True)
        print(f"error: the error file {file} could not be written ({error}).", flush=True)
