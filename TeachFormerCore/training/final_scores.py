"""The val cases, and those kept out of the whole cross-validation, with the final weights, once: their scores and
predictions; of the val cases, where a student was trained to do without channels, what every subset is worth."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import write_whole
from ..networks import SegmentationNetwork
from ..progress import Progress
from ..run_files import KEPT_OUT_FILE, KEPT_OUT_FOLDER, PER_CASE_FILE, PREDICTIONS_FOLDER
from .case_scores import CaseEvaluator, CaseScore, mean_dice
from .channel_subsets import SUBSETS_FILE, channel_subsets, score_subsets, subset_name, subsets_table
from .config import TrainConfig
from .entries import write_tensors


def score_val_cases(
    config: TrainConfig, network: SegmentationNetwork, evaluator: CaseEvaluator, cases: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Writes ``per_case.csv``, ``predictions/`` and, after channel dropout, ``subsets.csv``.

    Returns:
        For the manifest: ``val_dice``, see `mean_dice`, and ``subsets``, that mean by subset of the channels, empty
        without channel dropout or without val cases.
    """
    channels = [channel.name for channel in evaluator.prepared.plan.channels]
    subsets = channel_subsets(channels)
    full = subset_name(channels, [True] * len(channels))
    if config.augmentation.channel_dropout == 0:
        subsets = {full: subsets[full]}
    scores = score_subsets(evaluator, network, cases, subsets, label=f"scoring {config.run}")
    write_predictions(scores[full], folder / PREDICTIONS_FOLDER)
    write_whole(folder / PER_CASE_FILE, per_case_table(scores[full]))
    if len(subsets) > 1:
        write_whole(folder / SUBSETS_FILE, subsets_table(scores))
    means = {name: mean_dice(each) for name, each in scores.items()}
    return {"val_dice": means[full], "subsets": means if len(subsets) > 1 and cases else {}}


def score_kept_out_cases(
    config: TrainConfig, network: SegmentationNetwork, evaluator: CaseEvaluator, folder: Path
) -> dict[str, Any]:
    """Writes ``kept_out.csv`` and ``predictions_kept_out/``.

    Args:
        evaluator: of the prepared cases that are kept out.

    Returns:
        For the manifest: what they are, and their `mean_dice`.
    """
    plan, cases = evaluator.prepared.plan, evaluator.prepared.cases
    scores = []
    with Progress(len(cases), f"scoring {config.run}, cases kept out") as progress:
        for case in cases:
            scores.append(evaluator.score(network, case))
            progress.advance()
    write_predictions(scores, folder / KEPT_OUT_FOLDER)
    write_whole(folder / KEPT_OUT_FILE, per_case_table(scores))
    return {"preparation": plan.key(), "cases": len(cases), "dice": mean_dice(scores)}


def write_predictions(scores: Sequence[CaseScore], folder: Path) -> None:
    """Writes what the final weights made of each case, ``<case>.safetensors`` with ``label`` and ``logits``."""
    folder.mkdir(exist_ok=True)
    for score in scores:
        arrays = {"label": score.label, "logits": score.logits}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_tensors(folder / f"{score.case}.safetensors", tensors)


def per_case_table(scores: Sequence[CaseScore]) -> str:
    """``per_case.csv``: a row per case and label; Dice is empty where the label is in neither mask."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "label", "dice", "loss"])
    for score in scores:
        for label, value in score.dice.items():
            writer.writerow([score.case, label, "" if value is None else f"{value:.6f}", f"{score.loss:.6f}"])
    return stream.getvalue()
