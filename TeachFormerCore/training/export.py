"""From a finished run to a model folder: the weights and a card whose every figure comes from a file."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..files import sha256_of
from ..inference.card import SCHEMA_VERSION, Card
from ..inference.model_folder import read_card, write_model
from ..paths import user_models_folder
from ..run_files import PER_CASE_FILE, chosen_on_validation, read_manifest, read_per_case
from .run_folder import WEIGHTS_FILE, run_path

# An image may be this much larger than the largest of the dataset the model was trained on.
FIELD_OF_VIEW_MARGIN = 1.25
BOOTSTRAP_SAMPLES = 10_000
COLOURS = ((230, 85, 13), (49, 130, 189), (49, 163, 84), (117, 107, 177), (222, 45, 38), (99, 99, 99))
RESEARCH_ONLY = "Research only, not a medical device: every result must be checked by a qualified person."


def export_run(
    run: str | Path,
    *,
    output: Path | None = None,
    described: Path | None = None,
    evaluation: Path | None = None,
    runtimes: Sequence[str] = (),
) -> Path:
    """Makes a model folder of a finished run.

    Args:
        run: the run, as in its configuration.
        output: the folder to make; in the user's models folder, by the model's name, unless given.
        described: JSON with fields of the card that only people know: name, version, description, intended_use,
            needs_region, region_hint, and per label name its color and terminology.
        evaluation: folder written by ``teachformer evaluate`` for this model on its val cases; the card's accuracy is
            taken from it instead of the run's own scores.
        runtimes: openvino, onnx or both, whose graphs the folder is to hold too.

    Raises:
        InputError: no finished run, or files that cannot be used or do not belong together.
    """
    folder = run_path(run)
    manifest = read_manifest(folder)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file() or sha256_of(weights) != manifest["weights_sha256"]:
        raise InputError(f"{weights} is not the file the run's manifest was written for: train the run again.")
    words = _read_json(described) if described else {}
    card = build_card(manifest, words, default_name=folder.name)
    card["accuracy"] = _own_accuracy(folder / PER_CASE_FILE, manifest)
    if evaluation:
        card["accuracy"], card["seconds"] = _evaluated(evaluation, manifest)
    if manifest.get("subsets"):
        card["accuracy"]["subsets"] = manifest["subsets"]  # Dice with every subset of the channels, on the model grid
    target = output or user_models_folder() / card["name"]
    with TemporaryDirectory() as scratch:
        graphs = _graphs(card, weights, runtimes, Path(scratch)) if runtimes else None
        write_model(target, card, weights, more=graphs)
    read_card(target)
    return target


def build_card(manifest: dict[str, Any], words: dict[str, Any], *, default_name: str) -> Card:
    """The card of a run, without its figures."""
    config, data, patients = manifest["config"], manifest["data"], manifest["patients"]
    said = words.get("labels", {})
    names = sorted((value, name) for name, value in data["labels"].items() if value > 0)
    labels = [
        {
            "value": value,
            "name": name,
            "color": said.get(name, {}).get("color", list(COLOURS[(value - 1) % len(COLOURS)])),
            "terminology": said.get(name, {}).get("terminology"),
        }
        for value, name in names
    ]
    channels = " + ".join(channel["name"] for channel in data["channels"])
    return {
        "schema_version": SCHEMA_VERSION,
        "name": words.get("name", default_name),
        "version": words.get("version", __version__),
        "description": words.get("description", f"{config['network']}: {channels}, trained on {data['dataset']}"),
        "network": manifest["network"],
        "channels": [channel | {"optional": serves_every_subset(config)} for channel in data["channels"]],
        "labels": labels,
        "spacing": config["spacing"],
        "image_size": config["image_size"] or config["patch_size"],
        "field_of_view_mm": [math.ceil(FIELD_OF_VIEW_MARGIN * n) for n in data["largest_field_of_view_mm"]],
        "needs_region": words.get("needs_region", False),
        "region_hint": words.get("region_hint", "This model was trained on smaller images: place a box."),
        "teachers": manifest.get("teachers", []),
        "training": {
            "dataset": data["dataset"],
            "licence": data["licence"],
            "reference": data["reference"],
            "fold": config["fold"],
            "protocol": config["protocol"],
            "steps": manifest["steps"],
            "seed": config["seed"],
            "device": manifest["device"],
            "precision": manifest["precision"],
            "seconds_per_step": manifest["seconds_per_step"],
            "training_patients": patients["training"],
            "tuning_patients": patients["tuning"],
            "validation_patients": patients["validation"],
            "chosen_on_validation": chosen_on_validation(config),
        },
        "accuracy": {},
        "seconds": {},
        "intended_use": words.get("intended_use", RESEARCH_ONLY),
    }


def serves_every_subset(config: dict[str, Any]) -> bool:
    """Whether a run's network was trained to do without any of its channels, as long as one is there."""
    return config["augmentation"].get("channel_dropout", 0) > 0 and len(config["channels"]) > 1


def _graphs(card: Card, weights: Path, runtimes: Sequence[str], scratch: Path) -> dict[str, Path]:
    from ..inference.graphs import write_graphs

    model, folder = scratch / "model", scratch / "graphs"
    folder.mkdir()
    write_model(model, card, weights)
    return write_graphs(model, card, runtimes, folder)


def bootstrap_interval(values: list[float], *, seed: int = 0) -> list[float] | None:
    """95 % interval of the mean over cases, percentile bootstrap; None for fewer than two."""
    if len(values) < 2:
        return None
    random = np.random.default_rng(seed)
    samples = random.choice(np.array(values), (BOOTSTRAP_SAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(samples, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def _own_accuracy(file: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Dice of the val cases on the model's grid, as training scored them; empty without val cases."""
    scores = [(case, dice) for (case, _), dice in read_per_case(file).items()]
    return _accuracy(scores, grid=f"model grid, {manifest['config']['spacing']} mm", manifest=manifest)


def _accuracy(scores: Iterable[tuple[str, float | None]], *, grid: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Of the Dice of each case's labels: their mean is one value of the case. Empty without any."""
    dice_of: dict[str, list[float]] = {}
    for case, dice in scores:
        if dice is not None:
            dice_of.setdefault(case, []).append(dice)
    values = [float(np.mean(labels)) for labels in dice_of.values()]
    if not values:
        return {}
    config = manifest["config"]
    known = "on which its best epoch was chosen" if chosen_on_validation(config) else "never trained or tuned on"
    return {
        "dice": round(float(np.mean(values)), 4),
        "dice_interval_95": bootstrap_interval(values),
        "cases": len(values),
        "on": f"val cases of fold {config['fold']}, {known}; {grid}",
    }


def _evaluated(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Accuracy and seconds of an evaluation on the label files' grid.

    Raises:
        InputError: it scored another model, or cases outside the run's val patients.
    """
    summary = _read_json(folder / "summary.json")
    if summary.get("weights_sha256") != manifest["weights_sha256"]:
        raise InputError(f"{folder} evaluates another model than this run's: evaluate the exported model first.")
    if any(case["seen"] for case in summary["cases"]):
        raise InputError(
            f"{folder} holds cases that the model was trained on, or chosen on (protocol 'paper'): evaluate its val "
            "fold (--splits, --fold), or cases kept out of everything."
        )
    scores = ((case["case"], case["dice"]) for case in summary["cases"])
    accuracy = _accuracy(scores, grid="on the label files' grid", manifest=manifest)
    accuracy |= {
        name: round(summary["mean"][name], 4)
        for name in ("iou", "hd95_mm", "surface_dice")
        if summary["mean"].get(name) is not None
    }
    accuracy["baselines_dice"] = {
        name: round(means["dice"], 4)
        for name, means in summary["baselines"].items()
        if means and means.get("dice") is not None
    }
    return accuracy, {summary["device"]: round(summary["seconds_per_case"], 2)}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} could not be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a JSON object.")
    return content
