"""The cases of a batch: a CSV table, or a folder with nnU-Net's file names or one subfolder a case."""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .batch_state import STATE_FILES
from .card import card_channels
from .outputs import place, spelling

LARGEST_TABLE = 64 * 2**20  # bytes
CASE = "case"
# Columns beside the channels': what a case needs of its own.
OPTIONS = ("region_ras", "suv_factor")
MOST_LETTERS = 150  # of a case's name, which becomes that of a file
RESERVED = ("summary", "con", "prn", "aux", "nul")
NUMBERED = re.compile(r"(.+)_(\d{4})")  # nnU-Net's name of a case's image, without its ending


@dataclass(frozen=True, kw_only=True)
class BatchCase:
    """One case; its files are looked at when its turn comes.

    Attributes:
        inputs: ``NAME=path`` each; empty for a case that is a folder.
        folder: holds the case's images, named by channel, or its DICOM series.
        region_ras: ``CX,CY,CZ,RX,RY,RZ`` in mm, or "".
        suv_factor: SUV per Bq/mL, or "".
    """

    name: str
    inputs: tuple[str, ...] = ()
    folder: Path | None = None
    region_ras: str = ""
    suv_factor: str = ""

    @property
    def task(self) -> str:
        """Changes with what is asked for of the case: a digest."""
        asked = [*self.inputs, str(self.folder or ""), self.region_ras, self.suv_factor]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    def pairs(self, card: Mapping[str, Any]) -> tuple[str, ...]:
        """``NAME=path`` of every image.

        Raises:
            InputError: the case's folder cannot be read.
        """
        if self.folder is None:
            return self.inputs
        from .case_folder import folder_pairs

        return folder_pairs(self.folder, card)


def find_cases(source: Path, card: Mapping[str, Any], output: Path | None = None) -> list[BatchCase]:
    """The cases of a CSV table or a folder, sorted by name: the same before, during and after the batch.

    Args:
        output: the folder of the results; where it lies in the folder of cases, it is no case.

    Raises:
        InputError: no such file or folder, no cases in it, names that cannot be used, columns that are unknown, results
            that would be taken for cases.
    """
    if source.is_dir():
        cases = _folder_cases(source, card, output)
    elif source.is_file():
        cases = _table_cases(source, card)
    else:
        raise InputError(f"{source} does not exist: give a CSV table or a folder of cases.")
    if not cases:
        raise InputError(
            f"{source} holds no cases: give a CSV table (case,{','.join(_names(card))}), or a folder with files named "
            "CASE_0000.nii.gz or with one subfolder a case."
        )
    seen: dict[str, str] = {}
    for case in cases:
        _check_name(case.name, source)
        if (known := seen.setdefault(spelling(case.name), case.name)) is not case.name:
            raise InputError(f"{source} has two cases named {known} and {case.name}: give each a name of its own.")
    return sorted(cases, key=lambda case: case.name)


def _folder_cases(folder: Path, card: Mapping[str, Any], output: Path | None) -> list[BatchCase]:
    from ..data.image import image_ending

    numbered: dict[str, list[str]] = {}
    subfolders = []
    channels = _numbered_channels(folder, card)
    for path in sorted(folder.resolve().iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if not _holds_results(path, card, output):
                subfolders.append(BatchCase(name=path.name, folder=path))
        elif ending := image_ending(path):
            match = NUMBERED.fullmatch(path.name[: -len(ending)])
            if match and int(match.group(2)) < len(channels) and (name := channels[int(match.group(2))]):
                numbered.setdefault(match.group(1), []).append(f"{name}={path}")
            elif match:
                numbered.setdefault(match.group(1), [])
    cases = [BatchCase(name=name, inputs=tuple(pairs)) for name, pairs in numbered.items()] or subfolders
    if output and place(output) == place(folder):
        alike = next((case.name for case in cases if NUMBERED.fullmatch(case.name)), None)
        if alike:
            raise InputError(
                f"{output} holds the cases, and the result of {alike} would be taken for an image of another one: give "
                "another folder for the results."
            )
    return cases


def _holds_results(folder: Path, card: Mapping[str, Any], output: Path | None) -> bool:
    """Whether a folder in that of the cases has the results of a batch in it, of this one or another."""
    if any(folder.glob(STATE_FILES)):
        return True
    if output is None or not Path(place(output)).is_relative_to(place(folder)):
        return False
    from .case_folder import folder_pairs

    if folder_pairs(folder, card):
        raise InputError(f"{output} lies in the folder of the case {folder.name}: give another one for the results.")
    return True


def _numbered_channels(folder: Path, card: Mapping[str, Any]) -> list[str | None]:
    """What nnU-Net's numbers mean: by ``dataset.json`` in the folder or beside it, else the card's channels in order.

    None for a channel that the model does not have.
    """
    file = next((file for file in (folder / "dataset.json", folder.parent / "dataset.json") if file.is_file()), None)
    if file is None:
        return [*_names(card)]
    try:
        described = json.loads(file.read_text(encoding="utf-8-sig"))
        named = described.get("channel_names") or described.get("modality") or {}
        ordered = [str(named[str(number)]).lower() for number in range(len(named))]
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{file} could not be read as an nnU-Net description ({error}): its 'channel_names' say which channel a "
            "file's number is."
        ) from error
    known = {name.lower(): name for name in _names(card)}
    return [known.get(name) for name in ordered]


def _table_cases(file: Path, card: Mapping[str, Any]) -> list[BatchCase]:
    text = _read_table(file)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for cells in reader:
            rows.append([cell.strip() for cell in cells])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}, is not CSV ({error}): save the table again.") from error
    header, *rows = _without_empty_columns(rows) or [[]]
    columns = _columns(header, file, card)
    return [_row_case(cells, columns, file, line) for cells, line in zip(rows, lines[1:], strict=False) if any(cells)]


def _without_empty_columns(rows: list[list[str]]) -> list[list[str]]:
    """The rows without columns in which none holds anything, nor the header: spreadsheets leave such behind."""
    width = max(map(len, rows), default=0)
    used = [column for column in range(width) if any(column < len(row) and row[column] for row in rows)]
    return [[row[column] for column in used if column < len(row)] for row in rows]


def _read_table(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST_TABLE:
            raise InputError(f"{file} is larger than {LARGEST_TABLE // 2**20} MiB: it is no table of cases.")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} could not be read as a table ({error}): save it as CSV in UTF-8.") from error


def _delimiter(text: str) -> str:
    """Semicolons, as Excel writes in half of the world, or commas."""
    header = text.partition("\n")[0]
    return ";" if header.count(";") > header.count(",") else ","


def _columns(header: list[str], file: Path, card: Mapping[str, Any]) -> list[str]:
    """What each column holds: ``case``, an option, or the name of a channel."""
    from .inputs import channel_named

    columns: list[str] = []
    for cell in header:
        name = cell.lower()
        if name not in (CASE, *OPTIONS):
            try:
                name = channel_named(cell, card_channels(card), card).name
            except InputError as error:
                raise InputError(
                    f"{file} has a column '{cell}', which is not {CASE}, {', '.join(OPTIONS)} or a channel: {error}"
                ) from error
        if name in columns:
            raise InputError(f"{file} has two columns for {name}: remove one.")
        columns.append(name)
    if CASE not in columns:
        raise InputError(f"{file} has no column '{CASE}': its first line must be {CASE},{','.join(_names(card))}.")
    return columns


def _row_case(cells: list[str], columns: list[str], file: Path, line: int) -> BatchCase:
    if len(cells) > len(columns):
        raise InputError(f"{file}, line {line}, has {len(cells)} cells for {len(columns)} columns: quote commas.")
    row = dict(zip(columns, cells, strict=False))
    if not all(cell.isprintable() for cell in row.values()):
        raise InputError(f"{file}, line {line}, has letters that cannot be printed: save the table again.")
    paths = {column: cell for column, cell in row.items() if column not in (CASE, *OPTIONS) and cell}
    return BatchCase(
        name=row.get(CASE, ""),
        # A link is left as it is named: what it leads to may have no ending.
        inputs=tuple(f"{name}={os.path.abspath(file.parent.resolve() / path)}" for name, path in paths.items()),
        region_ras=row.get("region_ras", ""),
        suv_factor=row.get("suv_factor", ""),
    )


def _check_name(name: str, source: Path) -> None:
    """A case's name becomes that of its files, on whatever system, and a cell that a spreadsheet may read."""
    usable = (
        0 < len(name) <= MOST_LETTERS
        and name.isprintable()
        and not re.search(r'[<>:"/\\|?*]', name)
        and not name.startswith((".", "-", "=", "+", "@", " "))
        and not name.endswith((".", " "))
        and name.lower() not in RESERVED
    )
    if not usable:
        raise InputError(
            f"{source} has a case named {name[:200]!r}, which cannot be the name of a file: use letters, digits, '-' "
            f"and '_', at most {MOST_LETTERS}."
        )


def _names(card: Mapping[str, Any]) -> list[str]:
    return [channel["name"] for channel in card["channels"]]
