"""The files of a run that others read, checked as they are read: what is damaged is named, never met further on."""

import csv
import json
from pathlib import Path
from typing import Any, NoReturn

from .errors import InputError

CROSSVAL_FILE = "crossval.json"  # of a cross-validation; the others are of a run
CONFIG_FILE, MANIFEST_FILE = "config.yaml", "manifest.json"
METRICS_FILE, AUDIT_FILE = "metrics.csv", "audit.json"
PREDICTIONS_FOLDER, PER_CASE_FILE = "predictions", "per_case.csv"
KEPT_OUT_FOLDER, KEPT_OUT_FILE = "predictions_kept_out", "kept_out.csv"  # of no fold: tested once, by every run

# A shape is a type, a tuple of alternatives, an object's keys with their shapes (``key?`` may be missing, ``str`` is
# every key), or a list: of any length with one shape, as long as its shapes with several.
Shape = Any
NULL = type(None)
NUMBER = (int, float)
MISSING = object()
ROLES: Shape = {f"{role}_patients": [str] for role in ("training", "tuning", "validation")}
NETWORK: Shape = {"name": str, "arguments": {}}
TEACHER: Shape = {
    "run": str,
    "weight": NUMBER,
    "temperature": NUMBER,
    "tune?": {"dice": (*NUMBER, NULL), "ece": NUMBER, "ece_calibrated": (*NUMBER, NULL)},
    "network": NETWORK,
    "weights_sha256": str,
    **ROLES,
}
TEACHER["teachers"] = [TEACHER]
CONFIG: Shape = {
    "data": str,
    "kept_out?": (str, NULL),
    "network": str,
    "network_arguments": {},
    "teachers": [{"run": str}],
    "channels": [str],
    "patch_size": ([int, int], [int, int, int]),
    "image_size": ([int, int], [int, int, int], NULL),
    "spacing": [NUMBER, NUMBER, NUMBER],
    "fold": (int, str),
    "seed": int,
    "protocol": str,
    "max_steps": (int, NULL),
    "patience": (int, NULL),
    "distillation": {},
}
MANIFEST: Shape = {
    "config": CONFIG,
    "network": NETWORK,
    "data": {
        "dataset": str,
        "licence": (str, NULL),
        "reference": (str, NULL),
        "preparation": str,
        "split": str,
        "channels": [{"name": str, "normalisation": {"kind": str}}],
        "labels": {str: int},
        "largest_field_of_view_mm": [NUMBER, NUMBER, NUMBER],
    },
    "patients": {"training": [str], "tuning": [str], "validation": [str]},
    "teachers": [TEACHER],
    "steps": int,
    "device": str,
    "device_name?": str,
    "threads?": int,
    "processes?": int,
    "precision": str,
    "seconds_per_step": (*NUMBER, NULL),
    "weights_sha256": str,
    "val_dice": (*NUMBER, NULL),
    "subsets?": {str: (*NUMBER, NULL)},
    "kept_out?": ({"preparation": str}, NULL),
    "versions": {"TeachFormer": str},
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        InputError: there is none (not a run, or not finished), or it is damaged; it says where.
    """
    file = folder / MANIFEST_FILE
    if not file.exists():
        raise InputError(
            f"{folder} holds no finished run (no {MANIFEST_FILE}): train it to the end first, the same command resumes."
        )
    content = read_json(file)
    if wrong := misfit(content, MANIFEST):
        raise InputError(
            f"{file} is not the manifest of a run ({wrong}): copy the run again, or remove this file and train the run "
            "again."
        )
    return content  # type: ignore[no-any-return]


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}): copy it again, or train the run again.") from error


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys and values of a run's configuration.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    import yaml

    advice = "copy it again, or remove its folder to train the run again"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read ({' '.join(str(error).split())}): {advice}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is not the configuration of a run: {advice}.")
    return content


def chosen_on_validation(config: dict[str, Any]) -> bool:
    """Whether a run's weights are those of the epoch that was best on its val cases, as a run's configuration says."""
    return config["protocol"] == "paper" and config["patience"] is not None


def read_per_case(file: Path) -> dict[tuple[str, str], float | None]:
    """Dice by case and label from a run's table of its cases; None where the label is in neither mask.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [(row["case"], row["label"], row["dice"]) for row in csv.DictReader(stream)]
        return {(case, label): float(dice) if dice else None for case, label, dice in rows}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise InputError(f"{file} cannot be read ({error}): copy the run again.") from error


def misfit(value: Any, shape: Shape, where: str = "") -> str | None:
    """Where a value first is not of a shape, in words; None where it is."""
    wrong = f"{where or 'all of it'} is missing or wrong"
    if isinstance(shape, tuple):
        return wrong if all(misfit(value, one, where) for one in shape) else None
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return wrong
        if str in shape:
            keys = dict.fromkeys(value, shape[str])
        else:
            keys = {key.rstrip("?"): inner for key, inner in shape.items() if key[-1] != "?" or key[:-1] in value}
        parts = [(value.get(key, MISSING), inner, f"{where}.{key}" if where else key) for key, inner in keys.items()]
    elif isinstance(shape, list):
        if not isinstance(value, list) or len(shape) not in (1, len(value)):
            return wrong
        inners = shape * len(value) if len(shape) == 1 else shape
        parts = [(one, inner, f"{where}[{n}]") for n, (one, inner) in enumerate(zip(value, inners, strict=True))]
    else:
        return None if isinstance(value, shape) else wrong
    return next((found for one, inner, place in parts if (found := misfit(one, inner, place))), None)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
