"""What is done of a batch: a line per case in ``state.jsonl``, appended when its files have appeared."""

import json
import os
import threading
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
    """

    case: str
    state: str
    seconds: float
    notices: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    task: str = ""


def state_file(folder: Path, shard: tuple[int, int] | None) -> Path:
    """The state of a batch, or of a shard ``(i, n)`` of it: processes on several machines never share a file."""
    return folder / (f"state-{shard[0]}-of-{shard[1]}.jsonl" if shard else STATE_FILE)


class BatchState:
    """A state file that records are appended to.

    Args:
        file: begins with ``{"batch": facts}``; made with the first record, if it is not there.
        facts: what the results depend on.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, file: Path, facts: Mapping[str, Any]) -> None:
        self._file = file
        self._lock = threading.Lock()
        # What comes before the first record: the head, or the end of a line that a killed process has torn.
        self._before = "" if file.is_file() else _line({"batch": dict(facts)})
        if file.is_file() and not file.read_bytes().endswith(b"\n"):
            self._before = "\n"

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
                self._before = ""
        except OSError as error:
            raise InputError(
                f"{self._file} could not be written ({error.strerror}): free some space, then start the batch again "
                "with --resume."
            ) from error


def read_states(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Record]]:
    """The facts of every state file of a folder, and the last record of each case; torn lines are passed over."""
    facts: list[dict[str, Any]] = []
    records: dict[str, Record] = {}
    for file in sorted(folder.glob(STATE_FILES)):
        for line in file.read_bytes().splitlines():
            entry = _entry(line)
            if isinstance(entry.get("batch"), dict):
                facts.append(entry["batch"])
            elif record := _record(entry):
                records[record.case] = _better(records.get(record.case), record)
    return facts, records


def _better(known: Record | None, new: Record) -> Record:
    """A case that one shard has done is done, whatever another one has said of it."""
    return known if known and known.state == DONE and new.state == FAILED else new


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _record(entry: Mapping[str, Any]) -> Record | None:
    case, state, seconds = entry.get("case"), entry.get("state"), entry.get("seconds")
    notices, error = entry.get("notices"), entry.get("error")
    if not isinstance(case, str) or state not in (DONE, FAILED):
        return None
    return Record(
        case=case,
        state=state,
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        notices=[str(notice) for notice in notices] if isinstance(notices, list) else [],
        error=error if isinstance(error, dict) else None,
        task=str(entry.get("task", "")),
    )
