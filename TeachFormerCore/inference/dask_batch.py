"""The cases of a batch on a Dask cluster: a task a case, handed out again where a worker is lost.

Inputs, results and the model folder lie where every worker finds them under the same path. The state is kept by the
process that hands out: a case counts when its worker has written its results and said so.
"""

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, TeachFormerError, missing_dependency
from .batch import OnRecord
from .batch_case import BatchJob, failure_record, segment_one
from .batch_state import Record

if TYPE_CHECKING:
    from .manifest import BatchCase
    from .predictor import Predictor

CONNECT_SECONDS = 20
# A worker may be lost for reasons of its own, such as a machine that is switched off; not so often with the same case.
RETRIES = 3

_one_at_a_time = threading.Lock()


def segment_on_cluster(job: BatchJob, model: Path, cases: Sequence["BatchCase"], on_record: OnRecord) -> None:
    """Segments the cases on the workers of ``job.scheduler``.

    Raises:
        MissingDependencyError: Dask is not installed.
        InputError: no scheduler answers, or it is lost.
    """
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError as error:
        raise missing_dependency("distributed", extra="dask", purpose="compute on a Dask cluster") from error

    try:
        client = Client(job.scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"No Dask scheduler answers at {job.scheduler} ({error}): start one, or leave --scheduler out."
        ) from error
    with client:
        futures = {
            client.submit(_segment, job, model.resolve(), case, pure=False, retries=RETRIES): case for case in cases
        }
        left = as_completed(futures, raise_errors=False)
        for future in left:
            case = futures.pop(future)
            if future.status == "cancelled":
                raise InputError(f"The scheduler {job.scheduler} was lost: start the batch again with --resume.")
            on_record(future.result() if future.status == "finished" else _lost(case, future.exception()))


def _segment(job: BatchJob, model: Path, case: "BatchCase") -> Record:
    """The task: one case at a time in a worker's process, whatever number of threads it has."""
    with _one_at_a_time:
        return segment_one(job, _predictor(model, job.device, job.runtime), case)


@functools.lru_cache(maxsize=1)
def _predictor(model: Path, device: str, runtime: str) -> "Predictor":
    from .predictor import Predictor

    return Predictor(model, device=device, runtime=runtime)


def _lost(case: "BatchCase", error: BaseException | None) -> Record:
    """The record of a case that never came back, e.g. since its workers died each time."""
    told = TeachFormerError(
        f"The cluster did not finish the case ({type(error).__name__}: {error}): see its workers' logs."
    )
    return failure_record(case, told, 0.0)
