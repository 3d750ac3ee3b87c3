"""What is done of a batch: a line per case in ``state.jsonl``, appended when its files have appeared."""

import json
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

STATE_FILE = "state.jsonl"
STATE_FILES = "state*.jsonl"
DONE, FAILED = "done", "failed"


@dataclass(frozen=True, kw_only=True)
class Record:
    """How one case ended.

    Attributes:
        state: done or failed.
        task: what was asked for, as `BatchCase.task` gives it.
        seconds: that it took; cases overlap, so their sum is more than the batch's.
        error: what went wrong, of a failed one.
        ended: when, in seconds since 1970.
    """

    case: str
    state: str
    seconds: float
    notices: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    task: str = ""
    ended: float = field(default_factory=lambda: round(time.time(), 3))


def state_file(folder: Path, shard: tuple[int, int] | None) -> Path:
    """The state of a batch, or of a shard ``(i, n)`` of it: processes on several machines never share a file."""
    return folder / (f"state-{shard[0]}-of-{shard[1]}.jsonl" if shard else STATE_FILE)


class BatchState:
    """A state file that records are appended to, made at once: of two batches that begin in a folder one is refused.

    Args:
        file: begins with ``{"batch": facts}``.
        facts: what the results depend on.
        resume: whether the file may be there.

    Raises:
        InputError: the file is there, or cannot be written.
    """

    def __init__(self, file: Path, facts: Mapping[str, Any], *, resume: bool = True) -> None:
        self._file = file
        self._lock = threading.Lock()
        head, content = _line({"batch": dict(facts)}), b""
        try:
            self._unused = self._make(head)
            if not self._unused:
                content = file.read_bytes()
        except OSError as error:
            raise self._cannot_write(error) from error
        if not (self._unused or resume):
            raise begun_already(file)
        # What comes before the first record: the end of a line that a killed process has torn, or the head it lacks.
        self._before = "\n" if content and not content.endswith(b"\n") else ""
        if not self._unused and b"\n" not in content:
            self._before += head

    def _make(self, head: str) -> bool:
        """Makes the file; False where it is there."""
        try:
            stream = self._file.open("xb", buffering=0)
        except FileExistsError:
            return False
        try:
            with stream:
                stream.write(head.encode("utf-8", errors="backslashreplace"))
        except OSError:
            self._file.unlink(missing_ok=True)
            raise
        return True

    def withdraw(self) -> None:
        """Removes the file if it was made here and no record has come: nothing was begun."""
        if self._unused:
            self._file.unlink(missing_ok=True)

    def append(self, record: Record) -> None:
        """Adds a record, on the disk when it returns.

        Raises:
            InputError: it cannot be written.
        """
        try:
            # One write of whole lines at the end of the file, wherever another process has left that.
            with self._lock, self._file.open("ab", buffering=0) as stream:
                stream.write((self._before + _line(asdict(record))).encode("utf-8", errors="backslashreplace"))
                os.fsync(stream.fileno())
                self._before, self._unused = "", False
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> InputError:
        return InputError(
            f"{self._file} could not be written ({error.strerror}): free some space, then start the batch again with "
            "--resume."
        )


def begun_already(file: Path) -> InputError:
    """The error for a batch that would begin where one has a state file."""
    return InputError(
        f"{file.parent} holds a batch that was begun already ({file.name}): go on with --resume, or give another "
        "folder."
    )


def read_states(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Record]]:
    """The facts of every state file of a folder, and the record of each case; torn lines are passed over.

    In one file the last line on a case counts.
    """
    facts: list[dict[str, Any]] = []
    records: dict[str, Record] = {}
    for file in sorted(folder.glob(STATE_FILES)):
        told: dict[str, Record] = {}
        for line in file.read_bytes().splitlines():
            entry = _entry(line)
            if isinstance(entry.get("batch"), dict):
                facts.append(entry["batch"])
            elif record := _record(entry):
                told[record.case] = record
        records |= {case: _truer(records.get(case), record) for case, record in told.items()}
    return facts, records


def _truer(known: Record | None, new: Record) -> Record:
    """Whose word on a case holds: of one task, that it is done; of two tasks the later, whose results lie there."""
    if known is None:
        return new
    if known.task == new.task and known.state != new.state:
        return known if known.state == DONE else new
    return new if new.ended >= known.ended else known


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _record(entry: Mapping[str, Any]) -> Record | None:
    case, state = entry.get("case"), entry.get("state")
    notices, error = entry.get("notices"), entry.get("error")
    if not isinstance(case, str) or state not in (DONE, FAILED):
        return None
    return Record(
        case=case,
        state=state,
        seconds=_seconds(entry.get("seconds")),
        notices=[str(notice) for notice in notices] if isinstance(notices, list) else [],
        error=error if isinstance(error, dict) else None,
        task=str(entry.get("task", "")),
        ended=_seconds(entry.get("ended")),
    )


def _seconds(value: Any) -> float:
    """A number that a record may hold, or 0 in its place."""
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
    except OverflowError:
        return 0.0
