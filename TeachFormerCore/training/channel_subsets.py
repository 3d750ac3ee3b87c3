"""One student for every subset of its channels: what a training with channel dropout is worth with fewer of them."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import product

from ..networks import SegmentationNetwork
from ..progress import Progress
from .case_scores import CaseEvaluator, CaseScore

SUBSETS_FILE = "subsets.csv"


def channel_subsets(channels: Sequence[str]) -> dict[str, tuple[bool, ...]]:
    """Every subset but the empty one, e.g. ``CT+PET``, and per channel whether it is in; the full set comes last."""
    every = [kept for kept in product((False, True), repeat=len(channels)) if any(kept)]
    every.sort(key=lambda kept: (sum(kept), [not there for there in kept]))
    return {subset_name(channels, kept): kept for kept in every}


def subset_name(channels: Sequence[str], kept: Sequence[bool]) -> str:
    """The channels of a subset in the network's order, joined by ``+``."""
    return "+".join(name for name, there in zip(channels, kept, strict=True) if there)


def score_subsets(
    evaluator: CaseEvaluator,
    network: SegmentationNetwork,
    cases: Sequence[str],
    subsets: Mapping[str, Sequence[bool]],
    *,
    label: str,
) -> dict[str, list[CaseScore]]:
    """The scores of the cases with each subset of the channels; the others are 0, the normalised background."""
    scores: dict[str, list[CaseScore]] = {}
    with Progress(len(subsets) * len(cases), label) as progress:
        for name, kept in subsets.items():
            scores[name] = []
            for case in cases:
                scores[name].append(evaluator.score(network, case, kept=kept))
                progress.advance()
    return scores


def subsets_table(scores: Mapping[str, Sequence[CaseScore]]) -> str:
    """``subsets.csv``: a row per subset, case and label; Dice is empty where the label is in neither mask."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["channels", "case", "label", "dice"])
    for name, each in scores.items():
        for score in each:
            for label, value in score.dice.items():
                writer.writerow([name, score.case, label, "" if value is None else f"{value:.6f}"])
    return stream.getvalue()
