"""One case of a batch, step by step: read, computed, written; light, as the batch is."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .batch_state import DONE, FAILED, Record
from .failure import explain
from .outputs import Outputs

if TYPE_CHECKING:
    from ..data.image import OutputFiles
    from .inputs import Inputs
    from .manifest import BatchCase
    from .predictor import Prediction, Predictor
    from .region import Region


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """What to do with every case.

    Attributes:
        source: a CSV table or a folder, see `find_cases`.
        output: folder of the results.
        resume: go on with a batch; else its folder must hold no state.
        shard: ``(i, n)``: the i-th of n parts of the cases, 1 <= i <= n.
        scheduler: address of a Dask scheduler; None to compute in this process.
    """

    source: Path
    output: Path
    model: str | None = None
    device: str = "auto"
    runtime: str = "auto"
    pet_units: str = "suv"
    resume: bool = False
    shard: tuple[int, int] | None = None
    scheduler: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReadCase:
    """A case whose images are in memory."""

    case: "BatchCase"
    inputs: "Inputs"
    region: "Region | None"
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Computed:
    """A case whose results are in memory."""

    read: ReadCase
    prediction: "Prediction"
    seconds: float


def segment_one(job: BatchJob, predictor: "Predictor", case: "BatchCase") -> Record:
    """One case from its files to its results, whatever happens."""
    from ..data.image import OutputFiles

    start = time.monotonic()
    try:
        read = read_case(job, case, predictor.card)
        prediction = predictor.run(read.inputs.images, region=read.region)
        computed = Computed(read=read, prediction=prediction, seconds=time.monotonic() - start)
        return write_case(job, predictor.card, computed, OutputFiles())
    except Exception as error:
        return failure_record(case, error, time.monotonic() - start)


def read_case(job: BatchJob, case: "BatchCase", card: Mapping[str, Any]) -> ReadCase:
    """Reads and checks a case's images.

    Raises:
        InputError: whatever is wrong with them.
    """
    from .inputs import match_inputs, read_inputs
    from .region import parse_region

    start = time.monotonic()
    pairs = case.pairs(card)
    outputs_of(job, case).check(match_inputs(pairs, card).values())
    region = parse_region(case.region_ras) if case.region_ras else None
    try:
        factor = float(case.suv_factor) if case.suv_factor else None
    except ValueError as error:
        raise InputError(f"The suv_factor '{case.suv_factor}' must be a number: SUV per Bq/mL.") from error
    inputs = read_inputs(pairs, card, job.pet_units, factor)
    return ReadCase(case=case, inputs=inputs, region=region, seconds=time.monotonic() - start)


def write_case(job: BatchJob, card: dict[str, Any], computed: Computed, files: "OutputFiles") -> Record:
    """Writes a case's results, which appear together, and answers its record."""
    from .results import write_results

    start = time.monotonic()
    case, inputs = computed.read.case, computed.read.inputs
    with files:
        write_results(files, computed.prediction, outputs_of(job, case), inputs=inputs, card=card)
    return Record(
        case=case.name,
        state=DONE,
        seconds=round(computed.seconds + time.monotonic() - start, 2),
        notices=list(computed.prediction.notices),
        task=case.task,
    )


def outputs_of(job: BatchJob, case: "BatchCase") -> Outputs:
    """The files of a case."""
    return Outputs(label=job.output / f"{case.name}.nii.gz", statistics=job.output / f"{case.name}.json")


def failure_record(case: "BatchCase", error: Exception, seconds: float) -> Record:
    """The record of a case that an error has ended."""
    return Record(case=case.name, state=FAILED, seconds=round(seconds, 2), error=asdict(explain(error)), task=case.task)
