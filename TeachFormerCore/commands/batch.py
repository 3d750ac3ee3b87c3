"""``teachformer batch``: many cases with one model, resumed, in shards, or on a Dask cluster."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The contract's options."""
    parser.add_argument("--model", help="name or folder of a model (default: the shipped student)")
    parser.add_argument(
        "--input",
        required=True,
        type=Path,
        metavar="DIR_OR_CSV",
        help="a folder with nnU-Net's file names or one subfolder a case, or a table: case,CHANNEL,..."
        "[,region_ras][,suv_factor]",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the folder of the results")
    parser.add_argument("--resume", action="store_true", help="go on with a batch; done cases are not repeated")
    parser.add_argument("--shard", type=_shard, metavar="i/n", help="do the i-th of n parts of the cases")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="compute on a Dask cluster, e.g. tcp://head:8786")
    parser.add_argument("--pet-units", choices=("suv", "bqml"), default="suv", help="of PET that is no DICOM series")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps, intel:N")
    parser.add_argument("--runtime", default="auto", help="auto, torch, openvino or onnx")


def run(arguments: argparse.Namespace) -> int:
    """Segments the cases; 0, or 1 where some failed."""
    from ..inference.batch import BatchJob, run_batch
    from ..inference.batch_state import Record
    from ..inference.cancellation import Cancellation
    from ..inference.failure import Failure
    from ..progress import Progress

    job = BatchJob(
        source=arguments.input,
        output=arguments.output.resolve(),
        model=arguments.model,
        device=arguments.device,
        runtime=arguments.runtime,
        pet_units=arguments.pet_units,
        resume=arguments.resume,
        shard=arguments.shard,
        scheduler=arguments.scheduler,
    )
    progress = Progress(0, "segmenting")

    def start(todo: int, before: int) -> None:
        nonlocal progress
        progress = Progress(todo, "segmenting")
        if before:
            print(f"Done already: {before} of {before + todo} cases.", flush=True)

    def note(record: Record) -> None:
        if record.error:
            progress.close()
            print(f"teachformer: {record.case} failed: {Failure(**record.error).message}", file=sys.stderr, flush=True)
        progress.advance()

    farewell = "teachformer: error: cancelled: go on with --resume\n"
    with Cancellation(always=True, farewell=farewell) as cancellation:
        result = run_batch(job, cancellation, on_start=start, on_record=note)
    progress.close()
    failed = f", {len(result.failed)} failed ({', '.join(result.failed[:10])})" if result.failed else ""
    print(f"{arguments.output}: {result.done} done{failed}; see summary.csv")
    return result.exit_code


def _shard(text: str) -> tuple[int, int]:
    part, _, whole = text.partition("/")
    if part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole):
        return int(part), int(whole)
    raise argparse.ArgumentTypeError(f"'{text}' is not of the form i/n with 1 <= i <= n, e.g. 2/8")
