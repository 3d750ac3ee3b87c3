"""What an evaluation found, as ``summary.json`` and ``per_case.csv``."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .lesions import LesionCounts
from .scores import METRICS, MISSU_METRICS, Score, mean_scores, reports_like_missu

CSV_DECIMALS = {
    "dice": 4,
    "iou": 4,
    "hd95_mm": 2,
    "surface_dice": 4,
    "volume_error_ml": 3,
    "hd_mm": 2,
    "accuracy": 4,
}
COLUMNS = (
    *("case", "label", "dice", "iou", "hd95_mm", "surface_dice", "volume_error_ml", "missed", "seen"),
    *("lesions_matched", "lesions_predicted", "lesions_expected"),
)


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
    ``lesions`` are precision, recall and F1 over the lesions of all cases together. A dataset of MISSU's has its HD and
    accuracy too.

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
    metrics = METRICS + (MISSU_METRICS if reports_like_missu(dataset) else ())
    lesions = sum((one.lesions for one in scores), LesionCounts())
    summary: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "split": split,
        "weights_sha256": weights_sha256,
        "device": device,
        "seconds_per_case": seconds_per_case,
        "cases": [one.row() for one in scores],
        "mean": mean_scores(scores, metrics),
    }
    if len(labels) > 1:
        summary["mean_per_label"] = {
            label: mean_scores((one for one in scores if one.label == label), metrics) for label in labels
        }
    return summary | {
        "empty_cases": sum(one.empty for one in scores),
        "missed_cases": sum(one.missed for one in scores),
        "seen_cases": len({one.case for one in scores if one.seen}),
        "lesions": {"precision": lesions.precision, "recall": lesions.recall, "f1": lesions.f1},
        "baselines": {name: None if rows is None else mean_scores(rows, metrics) for name, rows in baselines.items()},
        "failed": [dict(one) for one in failed],
        "notices": list(notices),
    }


def per_case_csv(scores: Sequence[Score], *, dataset: str) -> str:
    """The scores as CSV, rounded for people; a value that does not exist is an empty cell.

    A dataset of MISSU's has its HD and accuracy too.
    """
    text = io.StringIO()
    columns = COLUMNS + (MISSU_METRICS if reports_like_missu(dataset) else ())
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in (one.detailed_row() for one in scores):
        writer.writerow({column: _cell(column, row[column]) for column in columns})
    return text.getvalue()


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.{CSV_DECIMALS[column]}f}" if column in CSV_DECIMALS else str(value)
