"""A table as plain values, and the same as Markdown, CSV and cells of a page."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOTHING = "-"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        key: in the rows, and heading of the CSV, with the unit.
        title: for people, with the unit.
        decimals: of a number; None for texts.
        scale: people see the value times this.
        least: of which smaller values are only said to be smaller, as of a p.
    """

    key: str
    title: str
    decimals: int | None = None
    scale: float = 1.0
    least: float | None = None

    @property
    def is_number(self) -> bool:
        """Whether it is set to the right."""
        return self.decimals is not None

    def text(self, value: Any) -> str:
        """A cell, for people."""
        if value is None or value == "":
            return NOTHING
        if isinstance(value, tuple):
            return f"{self.text(value[0])} to {self.text(value[1])}"
        if isinstance(value, bool) or not isinstance(value, int | float) or self.decimals is None:
            return str(value)
        if self.least is not None and value < self.least:
            return f"<{self.least:.{self.decimals}f}"
        return f"{value * self.scale:,.{self.decimals}f}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the report.

    Attributes:
        name: of its CSV file.
        title: its heading.
        about: sentences above it.
        columns: from left to right.
        rows: values by the columns' keys; a missing one is an empty cell, a pair an interval.
        notes: sentences below it.
    """

    name: str
    title: str
    about: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()

    def cells(self) -> list[list[str]]:
        """For people."""
        return [[column.text(row.get(column.key)) for column in self.columns] for row in self.rows]

    def csv(self) -> str:
        """In full precision; an interval is two columns, ``_low`` and ``_high``."""
        pairs = {c.key for c in self.columns if any(isinstance(row.get(c.key), tuple) for row in self.rows)}
        names = [
            name for c in self.columns for name in ((f"{c.key}_low", f"{c.key}_high") if c.key in pairs else (c.key,))
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for row in self.rows:
            cells: list[Any] = []
            for column in self.columns:
                value = row.get(column.key)
                cells += (value or (None, None)) if column.key in pairs else (value,)
            writer.writerow(["" if cell is None else cell for cell in cells])
        return text.getvalue()

    def markdown(self) -> str:
        """As GitHub renders it."""
        marks = ["---:" if column.is_number else "---" for column in self.columns]
        lines = [_line([column.title for column in self.columns]), _line(marks), *map(_line, self.cells())]
        return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
