"""The one way from an archive to a dataset: in a folder of its own that is renamed when it is whole, and resumable.

The source is only read. A case that cannot be read is named, and the others go on.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...devices import usable_cores
from ...errors import InputError
from ...progress import Progress
from ..image import TEMPORARY_PREFIX, OutputFiles, voxels
from ..integrity import itk_reason
from .archive import Archive, SourceCase, TargetCase
from .description import ENDING, describe, targets_of
from .memory import MEMORY_BUDGET, Budget, case_bytes
from .record import Record, has_record, sources_key


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a conversion did.

    ``total`` source cases, ``done`` of them lie in ``folder`` (``already`` before this run), ``failed`` says why each
    of the others does not; ``notes`` are (case, sentence); training and test count the target cases.
    """

    folder: Path
    total: int
    done: int
    already: int
    training: int
    test: int
    failed: Mapping[str, str]
    notes: Sequence[tuple[str, str]]


def convert(archive: Archive, destination: str | Path, *, threads: int | None = None) -> Outcome:
    """Converts every case of an archive that is not converted yet; nothing is published while no case is done.

    Args:
        archive: what to convert.
        destination: the folder to make. It appears when all cases were tried; where some failed, a second run takes it
            back under its temporary name, adds those that can be read by then, and renames it again.
        threads: as many cases at a time; default the number of cores, fewer where the images are large.

    Raises:
        InputError: the destination lies in the source, holds something else, or cannot be written.
    """
    destination = Path(os.path.abspath(destination))
    _check_place(archive, destination)
    finished = destination.exists()
    building = destination.with_name(f".{destination.name}.converting")
    record = Record(destination if finished else _made(building), archive)
    here = record.path.parent
    pending = [case for case in archive.cases if not (record.is_done(case) and _files_exist(here, record, case))]
    if finished and pending:
        os.replace(destination, building)
        record = Record(building, archive)
    failed: dict[str, str] = {}
    budget, lock = Budget(MEMORY_BUDGET), threading.Lock()

    def one(case: SourceCase) -> None:
        try:
            with budget.hold(case_bytes(case)):
                targets = list(case.read())
                _check_targets(case, targets, archive)
        except Exception as error:  # a broken case must not stop the others
            failed[case.name] = str(error) if isinstance(error, InputError) else _reason(error)
            return
        with lock:
            _remove_files(building, record, case)
        lines = [_write(target, case, building) for target in targets]
        with lock:
            record.add(
                {
                    "case": case.name,
                    "split": case.split,
                    "patient": case.patient,
                    "centre": case.centre,
                    "sources": sources_key(case),
                    "targets": lines,
                }
            )

    try:
        _work_off(pending, one, threads or usable_cores(), f"converting {archive.challenge}")
    except BaseException:
        if finished and building.exists():  # a dataset that was whole before does not vanish
            _publish(archive, record, building, destination)
        raise
    if record.cases and pending:
        _publish(archive, record, building, destination)
    done = [case for case in archive.cases if record.is_done(case)]
    splits = [target["split"] for line in record.cases.values() for target in targets_of(line)]
    return Outcome(
        folder=destination,
        total=len(archive.cases),
        done=len(done),
        already=len(archive.cases) - len(pending),
        training=splits.count("Tr"),
        test=splits.count("Ts"),
        failed=dict(sorted(failed.items())),
        notes=[
            (target["name"], note)
            for case in done
            for target in record.cases[case.name]["targets"]
            for note in target["notes"]
        ],
    )


def _work_off(cases: Sequence[SourceCase], one: Callable[[SourceCase], None], threads: int, label: str) -> None:
    with Progress(len(cases), label) as progress, ThreadPoolExecutor(max(1, threads)) as pool:
        futures = [pool.submit(one, case) for case in cases]
        try:
            for future in as_completed(futures):
                future.result()
                progress.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check_place(archive: Archive, destination: Path) -> None:
    source = archive.source.resolve()
    for inner, outer in ((destination.resolve(), source), (source, destination.resolve())):
        if inner.is_relative_to(outer):
            raise InputError(f"{destination} and the archive {source} lie in each other: give another place.")
    if destination.exists():
        if not has_record(destination):
            raise InputError(f"{destination} exists and is no conversion: name another folder or remove it.")
        building = destination.with_name(f".{destination.name}.converting")
        if building.exists():
            raise InputError(f"Both {destination} and {building} hold a conversion: remove one of them.")


def _made(building: Path) -> Path:
    try:
        for folder in ("imagesTr", "labelsTr"):
            (building / folder).mkdir(parents=True, exist_ok=True)
        for leftover in building.glob(f"*/{TEMPORARY_PREFIX}*"):  # of a run that was killed while it wrote
            shutil.rmtree(leftover)
    except OSError as error:
        raise InputError(f"{building} cannot be made ({error.strerror}): give another place.") from error
    return building


def _publish(archive: Archive, record: Record, building: Path, destination: Path) -> None:
    with OutputFiles() as files:
        description = describe(archive, destination.name, record)
        files.write_text(json.dumps(description, indent=1) + "\n", building / "dataset.json")
    os.replace(building, destination)


def _check_targets(case: SourceCase, targets: Sequence[TargetCase], archive: Archive) -> None:
    if not targets:
        raise InputError(f"The case {case.name} holds nothing to write.")
    for target in targets:
        if len(target.images) != len(archive.channels):
            raise InputError(f"The case {case.name} has {len(target.images)} of {len(archive.channels)} channels.")


def _write(target: TargetCase, case: SourceCase, folder: Path) -> dict[str, Any]:
    """Writes a target case, whole or not at all; its line of the record."""
    paths = [folder / f"images{case.split}" / f"{target.name}_{n:04d}{ENDING}" for n in range(len(target.images))]
    pairs = list(zip(paths, target.images, strict=True))
    values: list[int] = []
    if target.label is not None:
        pairs.append((folder / f"labels{case.split}" / f"{target.name}{ENDING}", target.label))
        values = np.unique(voxels(target.label)).tolist()
    with OutputFiles() as files:
        for path, image in pairs:
            path.parent.mkdir(exist_ok=True)
            files.write_image(image, path)
    return {
        "name": target.name,
        "files": [path.relative_to(folder).as_posix() for path, _ in pairs],
        "labels": values,
        "notes": list(target.notes),
    }


def _files_exist(folder: Path, record: Record, case: SourceCase) -> bool:
    return all((folder / file).is_file() for target in record.cases[case.name]["targets"] for file in target["files"])


def _remove_files(folder: Path, record: Record, case: SourceCase) -> None:
    """What an earlier run made of other files of the same case."""
    for target in record.cases.get(case.name, {}).get("targets", []):
        for file in target["files"]:
            (folder / file).unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {itk_reason(error)}"
