"""An evaluation's means as a table to read: the model, and beside it the baselines."""

from collections.abc import Mapping
from typing import Any

from .baselines import CENTRED_ELLIPSOID, PREDICT_NOTHING, SUV_2_5

TITLES = {
    PREDICT_NOTHING: "predict nothing",
    CENTRED_ELLIPSOID: "centred ellipsoid",
    SUV_2_5: "SUV > 2.5",
}
# Key of a mean, heading, decimals.
COLUMNS = (
    ("dice", "Dice", 3),
    ("iou", "IoU", 3),
    ("surface_dice", "surface Dice 3 mm", 3),
    ("hd95_mm", "HD95 mm", 1),
    ("volume_error_ml", "volume error mL", 1),
)


def render(summary: Mapping[str, Any]) -> str:
    """The text for a summary as `summarise` makes it."""
    rows = [(str(summary["model"]), summary["mean"])]
    rows += [(f"  {label}", mean) for label, mean in summary.get("mean_per_label", {}).items()]
    rows += [(TITLES.get(name, name), mean) for name, mean in summary["baselines"].items() if mean is not None]
    width = max(len(title) for title, _ in rows)
    cases = len({row["case"] for row in summary["cases"]})
    lines = [f"{summary['dataset']}, split {summary['split']}: mean over {cases} cases", ""]
    lines.append(" " * width + "".join(_cell(heading, heading) for _, heading, _ in COLUMNS))
    for title, mean in rows:
        cells = (_cell(heading, _number(mean[key], decimals)) for key, heading, decimals in COLUMNS)
        lines.append(title.ljust(width) + "".join(cells))
    missed, empty = summary["missed_cases"], summary["empty_cases"]
    lines.append("")
    lines.append(f"{missed} missed (Dice 0, HD95 the image's diagonal), {empty} empty (not in the means).")
    found = [f"{name} {_number(summary['lesions'][name], 3)}" for name in ("precision", "recall")]
    lines.append(f"Lesions, all cases together: {', '.join(found)}, F1 {_number(summary['lesions']['f1'], 3)}.")
    return "\n".join(lines)


def _cell(heading: str, text: str) -> str:
    return "  " + text.rjust(max(7, len(heading)))


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
