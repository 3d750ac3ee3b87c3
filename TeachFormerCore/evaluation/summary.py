"""What an evaluation found, as ``summary.json`` and ``per_case.csv``."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .scores import Score, mean_scores

CSV_DECIMALS = {"dice": 4, "iou": 4, "hd95_mm": 2, "surface_dice": 4, "volume_error_ml": 3}
COLUMNS = ("case", "label", "dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml", "missed", "seen")


def summarise(
    scores: Sequence[Score],
    *,
    model: str,
    dataset: str,
    split: str,
    baselines: Mapping[str, Sequence[Score] | None],
    weights_sha256: str | None = None,
    device: str | None = None,
    seconds_per_case: float | None = None,
    failed: Sequence[Mapping[str, str]] = (),
    notices: Sequence[str] = (),
) -> dict[str, Any]:
    """The object of ``summary.json``: numbers in full precision, never NaN or infinity.

    ``empty_cases`` and ``missed_cases`` count rows, that is cases of one label; ``seen_cases`` counts cases.

    Args:
        scores: one for each case and label.
        model: its name.
        dataset: its name.
        split: ``Tr`` or ``Ts``.
        baselines: each one's scores on the same cases, or None where it does not apply.
        weights_sha256: of the model's weights, so that the figures can be held against the very model they are of.
        device: that predicted.
        seconds_per_case: of the predictions, without reading and scoring.
        failed: ``{case, error}`` of the cases that are not in ``scores``.
        notices: what a reader of the numbers has to know.
    """
    labels = list(dict.fromkeys(one.label for one in scores))
    summary: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "split": split,
        "weights_sha256": weights_sha256,
        "device": device,
        "seconds_per_case": seconds_per_case,
        "cases": [one.row() for one in scores],
        "mean": mean_scores(scores),
    }
    if len(labels) > 1:
        summary["mean_per_label"] = {
            label: mean_scores(one for one in scores if one.label == label) for label in labels
        }
    return summary | {
        "empty_cases": sum(one.empty for one in scores),
        "missed_cases": sum(one.missed for one in scores),
        "seen_cases": len({one.case for one in scores if one.seen}),
        "baselines": {name: None if rows is None else mean_scores(rows) for name, rows in baselines.items()},
        "failed": [dict(one) for one in failed],
        "notices": list(notices),
    }


def per_case_csv(summary: Mapping[str, Any]) -> str:
    """The rows of ``summary["cases"]`` as CSV, rounded for people; a value that does not exist is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in summary["cases"]:
        writer.writerow({column: _cell(column, row[column]) for column in COLUMNS})
    return text.getvalue()


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.{CSV_DECIMALS[column]}f}" if column in CSV_DECIMALS else str(value)
