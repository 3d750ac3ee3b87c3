"""What a batch has found, in one table and one object: made of the state and of each case's own file."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.image import OutputFiles
from .batch_state import DONE, FAILED, Record

FIGURES = ("voxels", "volume_ml", "components", "mean_uncertainty")
PET_FIGURES = ("suv_max", "suv_mean", "suv_peak", "mtv_ml", "tlg")
COLUMNS = ("case", "state", "label", *FIGURES, *PET_FIGURES, "seconds", "notices", "cause", "fix")


def write_summary(
    folder: Path, cases: Sequence[str], records: Mapping[str, Record], facts: Mapping[str, Any], files: OutputFiles
) -> None:
    """Writes ``summary.csv``, a row per case and label, and ``summary.json``.

    Args:
        cases: every case of the batch, also those without a record (another shard's, or still to do).
        records: by case.
        facts: the model and the other things that the results depend on.
        files: write it, and are done then.
    """
    entries = [_entry(folder, name, records.get(name)) for name in cases]
    states = [entry["state"] for entry in entries]
    summary = {
        **facts,
        "total": len(entries),
        "done": states.count(DONE),
        "failed": states.count(FAILED),
        "open": states.count("open"),
        "cases": entries,
    }
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        for label in entry["labels"] or [{}]:
            writer.writerow(_row(entry, label))
    with files:
        files.write_text(
            json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n", folder / "summary.json"
        )
        files.write_text(table.getvalue(), folder / "summary.csv")


def _entry(folder: Path, name: str, record: Record | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"case": name, "state": "open", "seconds": None, "notices": [], "labels": [], "error": None}
    if record is None:
        return entry
    entry |= {"state": record.state, "seconds": record.seconds, "notices": record.notices, "error": record.error}
    if record.state == DONE:
        try:
            figures = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            entry["labels"] = [_label(label) for label in figures["labels"]]
        except (OSError, ValueError, KeyError, TypeError):  # removed or changed by somebody: a batch goes on without
            entry["state"] = "open"
    return entry


def _label(label: Mapping[str, Any]) -> dict[str, Any]:
    """A label's figures without its channels' values, which the case's own file has."""
    return {key: value for key, value in label.items() if key != "channels"}


def _row(entry: Mapping[str, Any], label: Mapping[str, Any]) -> list[Any]:
    pet = label.get("pet") or {}
    error = entry["error"] or {}
    return [
        entry["case"],
        entry["state"],
        label.get("name"),
        *(label.get(name) for name in FIGURES),
        *(pet.get(name) for name in PET_FIGURES),
        entry["seconds"],
        " ".join(entry["notices"]),
        error.get("cause"),
        error.get("fix"),
    ]
