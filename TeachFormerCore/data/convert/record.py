"""What a conversion has done so far: one line of JSON a case, written when its files are there.

A run that was killed at any moment leaves whole lines and perhaps a last one that is cut off, which does not count.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .archive import Archive, SourceCase

RECORD_FILE = "conversion.jsonl"
VERSION = 1  # raised whenever the files made of the same source would differ


class Record:
    """The lines of one conversion; ``cases`` by the name of the source case, the last line of a case counts."""

    def __init__(self, folder: Path, archive: Archive) -> None:
        """Opens the record of a folder, or begins one.

        Raises:
            InputError: the folder holds the conversion of another challenge, or one with other options.
        """
        self.path = folder / RECORD_FILE
        head = {"challenge": archive.challenge, "version": VERSION, "options": dict(archive.options)}
        lines = _lines(self.path)
        if not lines:
            self.path.write_text(json.dumps(head) + "\n", encoding="utf-8")
        elif lines[0] != head:
            raise InputError(
                f"{folder} holds another conversion ({_told(lines[0])}; now {_told(head)}): give another folder or "
                "remove that one."
            )
        if not self.path.read_bytes().endswith(b"\n"):  # a line that was cut off has no end of its own
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")
        self.cases: dict[str, dict[str, Any]] = {line["case"]: line for line in lines[1:] if "case" in line}

    def add(self, line: dict[str, Any]) -> None:
        """Notes that a case is done."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.cases[line["case"]] = line

    def is_done(self, case: SourceCase) -> bool:
        """Whether the case was converted from these very files, into the same split."""
        return case.name in self.cases and self.cases[case.name]["sources"] == sources_key(case)


def has_record(folder: Path) -> bool:
    """Whether a folder is the result of a conversion, finished or not."""
    return bool(_lines(folder / RECORD_FILE))


def sources_key(case: SourceCase) -> str:
    """Changes with the split and with the name, size or time of any file of the case."""
    entries: list[Any] = [case.split]
    for path in case.files:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                status = file.stat()
                entries.append((file.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines if lines and "challenge" in lines[0] else []


def _told(head: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key} {value}" for key, value in sorted(dict(head.get("options", {})).items()))
    return f"{head.get('challenge')} version {head.get('version')}" + (f", {options}" if options else "")
