"""Many cases, one model: read ahead, computed, written behind; each ends for itself, and what is done stays done.

Light, so that a process can be set up before anything heavy is imported.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EXIT_SOME_FAILED, InputError
from .batch_case import BatchJob as BatchJob
from .batch_case import Computed, ReadCase, failure_record, outputs_of, read_case, write_case
from .batch_state import (
    DONE,
    FAILED,
    STATE_FILE,
    STATE_FILES,
    BatchState,
    Record,
    begun_already,
    read_states,
    state_file,
)
from .outputs import place

if TYPE_CHECKING:
    from .cancellation import Cancellation
    from .manifest import BatchCase

OnRecord = Callable[[Record], None]


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """How many cases of this call ended how, and what was there already."""

    done: int
    failed: tuple[str, ...]
    before: int

    @property
    def exit_code(self) -> int:
        """0, or 1 where a case failed."""
        return EXIT_SOME_FAILED if self.failed else 0


def run_batch(
    job: BatchJob,
    cancellation: "Cancellation",
    *,
    on_start: Callable[[int, int], None] = lambda todo, before: None,
    on_record: OnRecord = lambda record: None,
) -> BatchResult:
    """Segments every case that is not done yet, and writes the summary.

    Args:
        on_start: told how many cases there are to do, and how many are done already.
        on_record: told how each case ended, when its results and its line in the state are written; from a thread.

    Raises:
        InputError: cases, model or folder cannot be used, or the state cannot be written any more.
        MissingDependencyError: a scheduler is given, and Dask is not installed.
    """
    from .batch_summary import write_summary
    from .manifest import find_cases
    from .model_folder import find_model, read_card

    model = find_model(job.model)
    card = read_card(model)
    every = find_cases(job.source, card, job.output)
    _check_images_stay(job, every)
    cases = shard_of(every, job.shard)
    facts = {"model": card["name"], "version": card["version"], "files": card["files"], "pet_units": job.pet_units}
    records = _claim(job, facts, cases)
    todo = [case for case in cases if not _is_done(job, case, records.get(case.name))]
    outdated = {case.name: case for case in todo if _was_done_otherwise(case, records.get(case.name))}
    state = BatchState(state_file(job.output, job.shard), facts, resume=job.resume)
    ended: list[Record] = []

    def note(record: Record) -> None:
        if record.state == FAILED and record.case in outdated:
            # They answer what is no longer asked, and would be taken for the failed case's.
            for file in outputs_of(job, outdated[record.case]).given().values():
                with contextlib.suppress(OSError):
                    file.unlink()
        state.append(record)
        ended.append(record)
        on_record(record)

    try:
        on_start(len(todo), len(cases) - len(todo))
        if todo and job.scheduler:
            from .dask_batch import segment_on_cluster

            segment_on_cluster(job, model, todo, note)
        elif todo:
            segment_cases(job, model, todo, note, cancellation)
    except BaseException:
        state.withdraw()
        raise
    tasks = {case.name: case.task for case in every}
    records = {name: record for name, record in read_states(job.output)[1].items() if record.task == tasks.get(name)}
    write_summary(job.output, list(tasks), records, facts, cancellation.new_files())
    failed = tuple(record.case for record in ended if record.state == FAILED)
    return BatchResult(done=len(ended) - len(failed), failed=failed, before=len(cases) - len(todo))


def shard_of(cases: Sequence["BatchCase"], shard: tuple[int, int] | None) -> list["BatchCase"]:
    """The cases of a shard ``(i, n)``: every n-th, so that the parts are of one size and kind."""
    return list(cases[shard[0] - 1 :: shard[1]] if shard else cases)


def segment_cases(
    job: BatchJob, model: Path, cases: Sequence["BatchCase"], on_record: OnRecord, cancellation: "Cancellation"
) -> None:
    """Segments cases in this process: at most one is read ahead of the one that is computed, and one written behind."""
    from .predictor import Predictor

    predictor = Predictor(model, device=job.device, runtime=job.runtime)
    with ThreadPoolExecutor(1, "reading") as reader, ThreadPoolExecutor(1, "writing") as writer:
        writing: Future[None] | None = None
        for case, reading in _read_ahead(reader, job, cases, predictor.card):
            start = time.monotonic()
            try:
                read = reading.result()
                prediction = predictor.run(read.inputs.images, region=read.region)
            except Exception as error:
                ending: Computed | Record = failure_record(case, error, time.monotonic() - start)
            else:
                ending = Computed(read=read, prediction=prediction, seconds=read.seconds + time.monotonic() - start)
                del read, prediction  # the writer's from here on, and gone when it has written them
            if writing:
                writing.result()  # what stops the whole batch, e.g. a state that cannot be written
            writing = writer.submit(_end, ending, job, predictor.card, on_record, cancellation)
        if writing:
            writing.result()


def _read_ahead(
    reader: ThreadPoolExecutor, job: BatchJob, cases: Sequence["BatchCase"], card: Mapping[str, Any]
) -> Iterator[tuple["BatchCase", "Future[ReadCase]"]]:
    ahead = reader.submit(read_case, job, cases[0], card)
    for case, following in zip(cases, [*cases[1:], None], strict=True):
        reading = ahead
        if following:
            ahead = reader.submit(read_case, job, following, card)
        yield case, reading


def _end(
    ending: Computed | Record,
    job: BatchJob,
    card: dict[str, Any],
    on_record: OnRecord,
    cancellation: "Cancellation",
) -> None:
    """Writes what a case has come to, its results first and then its line."""
    if isinstance(ending, Computed):
        case, seconds = ending.read.case, ending.seconds
        try:
            ending = write_case(job, card, ending, cancellation.new_files())
        except Exception as error:
            ending = failure_record(case, error, seconds)
        cancellation.unfinished = None
    on_record(ending)


def _check_images_stay(job: BatchJob, cases: Sequence["BatchCase"]) -> None:
    """Refuses a batch one of whose results would be written over an image of any of its cases."""
    images = {place(Path(pair.partition("=")[2])): case.name for case in cases for pair in case.inputs}
    for case in cases:
        for file in outputs_of(job, case).given().values():
            if owner := images.get(place(file)):
                raise InputError(
                    f"The result {file} of the case {case.name} would overwrite an image of the case {owner}: give "
                    "another folder for the results."
                )


def _claim(job: BatchJob, facts: Mapping[str, Any], cases: Sequence["BatchCase"]) -> dict[str, Record]:
    """Makes the folder of a new batch, or answers what is done of one that goes on.

    Args:
        cases: to do in this call.

    Raises:
        InputError: the folder holds a batch and is not resumed, or one of another model, or files of no batch that
            results would overwrite, or it cannot be written.
    """
    from ..data.image import check_folder

    try:
        job.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {job.output} could not be made ({error.strerror}): give another one.") from error
    check_folder(job.output / STATE_FILE)
    begun, records = read_states(job.output)
    present = sorted(job.output.glob(STATE_FILES))
    own = (job.output / STATE_FILE, state_file(job.output, job.shard))  # a shard begins beside the others
    if not job.resume and (blocking := [file for file in present if file in own or not job.shard]):
        raise begun_already(blocking[0])
    for key in ("model", "files", "pet_units"):
        if any(other.get(key) != facts[key] for other in begun):
            what = "PET units" if key == "pet_units" else "model"
            raise InputError(
                f"The batch in {job.output} was begun with another {what}: give the same one, or another folder."
            )
    if not (present and job.resume):  # where a batch goes on, what a killed process wrote last is written again
        files = [file for case in cases for file in outputs_of(job, case).given().values()]
        if taken := next((file for file in files if file.exists()), None):
            way_out = "go on with --resume, or " if present else ""
            raise InputError(f"{taken} exists already, and a result would overwrite it: {way_out}give another folder.")
    return records


def _was_done_otherwise(case: "BatchCase", record: Record | None) -> bool:
    """Whether the results of a case are of something else than is asked for now."""
    return record is not None and record.state == DONE and record.task != case.task


def _is_done(job: BatchJob, case: "BatchCase", record: Record | None) -> bool:
    """Whether a case is done as it is asked for now, and its results are still there."""
    done = record is not None and record.state == DONE and record.task == case.task
    return done and all(file.is_file() for file in outputs_of(job, case).given().values())
