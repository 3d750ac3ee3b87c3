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
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import EXIT_CANCELLED, TeachFormerError
from ..files import write_whole
from ..progress import time_left
from .batch import BatchJob as BatchJob
from .batch import run_batch
from .batch_state import Record
from .cancellation import Cancellation
from .case import Job as Job
from .case import name_channels as name_channels
from .case import segment_case
from .failure import Failure, explain

NAME = "TeachFormer"


def run_segmentation(job: Job, *, result_file: Path | None = None, error_file: Path | None = None) -> int:
    """Segments one case in this process, its main thread; every output appears, or none.

    Args:
        result_file: JSON {exit_code, model, version, device, notices, outputs {name: path}, seconds}; appears together
            with the outputs.
        error_file: JSON {cause, fix, original, exit_code}, on an error only.

    Returns:
        The exit code: 0 done, 2 input, 3 install, 4 internal. A SIGTERM or SIGINT ends the process itself, with 130.
    """
    progress = SlicerProgress()

    def work(cancellation: Cancellation) -> int:
        progress.start("Reading images")
        result = segment_case(job, cancellation, result_file=result_file, on_stage=progress.at)
        for notice in result["notices"]:
            print(f"note: {notice}", flush=True)
        progress.end()
        return 0

    return _told(work, Cancellation(), error_file)


def run_cases(job: BatchJob) -> int:
    """Segments the cases of a batch in this process, its main thread; see `run_batch`.

    Returns:
        The exit code: 0 done, 1 some cases failed (named), 2 input, 3 install, 4 internal. A SIGTERM or SIGINT ends the
        process itself, with 130.
    """
    progress = SlicerProgress()
    total = ended = 0
    begun = time.monotonic()

    def start(todo: int, before: int) -> None:
        nonlocal total, begun
        total, begun = todo, time.monotonic()
        progress.at(0.0, f"Segmenting {todo} cases, {before} done before")

    def note(record: Record) -> None:
        nonlocal ended
        ended += 1
        if record.error:
            print(f"error: {record.case}: {Failure(**record.error).message}", flush=True)
        left = time_left(time.monotonic() - begun, ended, total)
        progress.at(ended / total, f"{record.case}: {record.state}, {ended} of {total}, {left}")

    def work(cancellation: Cancellation) -> int:
        progress.start("Looking for cases")
        result = run_batch(job, cancellation, on_start=start, on_record=note)
        progress.end()
        return result.exit_code

    return _told(work, Cancellation(always=True))


def _told(work: Callable[[Cancellation], int], cancellation: Cancellation, error_file: Path | None = None) -> int:
    """The work's exit code; an error becomes a sentence, a file and a code."""
    with _everything_on_stdout(), cancellation:
        try:
            return work(cancellation)
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
    try:
        write_whole(file, json.dumps(vars(failure), indent=1) + "\n")
    except OSError as error:
        print(f"error: the error file {file} could not be written ({error}).", flush=True)
