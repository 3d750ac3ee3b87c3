"""What the tables are made of, and the cells that they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np

from ..statistics import bca_interval, paired_differences
from .arm_results import ArmResults, shared_values
from .arms import Arm, student_alone
from .cases import Cohort
from .comparisons import METRIC
from .paper import PaperRow, PaperSource, paper_row
from .study import Study
from .table import Column

ARM, KIND = Column(key="arm", title="Arm"), Column(key="kind", title="Kind")
PATIENTS = Column(key="patients", title="Patients", decimals=0)
DICE = Column(key="dice", title="Dice", decimals=3)
INTERVAL = Column(key="dice_interval_95", title="Dice, 95 % interval", decimals=3)
IOU = Column(key="iou", title="IoU", decimals=3)
MISSED = Column(key="missed", title="Missed", decimals=1)
EMPTY = Column(key="empty", title="Empty", decimals=1)
PAPER_DICE = Column(key="paper_dice", title="Paper: Dice", decimals=4)
PAPER_IOU = Column(key="paper_iou", title="Paper: IoU", decimals=4)
PAPER_ROW = Column(key="paper", title="Paper: row")
PAPER = (PAPER_DICE, PAPER_IOU, PAPER_ROW)
FEW_PATIENTS = 20  # below, an interval's true coverage is clearly less than it says
COUNTS_NOTE = (
    "Missed: labels of which nothing was found; empty: those that are empty in the reference and in the prediction. "
    "Both are counts of one seed: of several, each label counts by the part of them for which it holds."
)
FALSE_ALARMS_NOTE = (
    "Where the reference is empty, a false alarm has Dice 0; an arm, or another seed, that is rightly empty there then "
    "has Dice 1. Where neither arm raises one, the label says nothing and is left out."
)
STACKED_NOTE = (
    "The volumes are stacked of single slices: how far apart these are is not known, and some may be missing between "
    "them, so that distances, volumes and lesions are not scored (-). "
)
PRIORS_NOTE = (
    "The last rows need no training: an empty mask, an ellipsoid in the middle of the image, a threshold. What a model "
    "is worth is its distance from them."
)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What all tables are made of."""

    study: Study
    cohort: Cohort
    arms: Sequence[Arm]
    source: PaperSource

    @property
    def common(self) -> list[str]:
        """Patients on whom every arm was scored."""
        return sorted(set.intersection(*(set(arm.results.patients) for arm in self.arms)))

    @property
    def priors(self) -> list[Arm]:
        """The arms that need no training."""
        return [arm for arm in self.arms if arm.kind == "prior"]

    def paper(self, arm: Arm, *tables: str, split: str = "test") -> PaperRow | None:
        """The paper's figures for an arm, from the first of some tables that has it."""
        if arm.example is None or not arm.is_unchanged:
            return None
        networks = {other.name: other.network for other in self.arms}
        return paper_row(
            self.source, arm.network, [networks.get(name, "") for name in arm.teachers], split=split, note=tables
        )

    def volume_note(self) -> str:
        """What the figures are of."""
        x, y, z = self.cohort.spacing
        stacked = any(not one.placed for result in self.priors[0].results.results for one in result.scores)
        grid = f"{x:g} x {y:g}" if stacked else f"{x:g} x {y:g} x {z:g}"
        return (
            f"Volume-level, on the model's grid ({grid} mm), mean over patients; seeds and cases of a "
            f"patient are averaged first. {STACKED_NOTE if stacked else ''}{self.empty_note()}"
        )

    def empty_note(self) -> str:
        """How many labels there is nothing to find of."""
        nothing = self.priors[0].results
        rows = len({(one.case, one.label) for result in nothing.results for one in result.scores})
        return f"{nothing.empty:g} of {rows} reference labels are empty."


def arm_cells(arm: Arm) -> dict[str, Any]:
    return score_cells(arm, arm.results)


def score_cells(arm: Arm, results: ArmResults) -> dict[str, Any]:
    return {
        "arm": arm.title,
        "kind": arm.kind,
        "network": arm.network,
        "patients": len(results.patients),
        "dice": results.mean("dice"),
        "dice_interval_95": bca_interval(np.array(list(results.values(METRIC).values()))),
        "iou": results.mean("iou"),
        "missed": results.missed,
        "empty": results.empty,
    }


def paper_cells(paper: PaperRow | None) -> dict[str, Any]:
    return {"paper_dice": paper.dice, "paper_iou": paper.iou, "paper": paper.source} if paper else {}


def gain(arm: Arm, context: Context) -> float | None:
    alone = student_alone(arm, context.arms) if arm.kind == "distilled" else None
    if alone is None:
        return None
    return mean_of(paired_differences(*shared_values([arm.results, alone.results], METRIC)).tolist())


def interval_note(patients: Iterable[int]) -> str:
    """How intervals were made, and what they are worth with so many patients."""
    note = "Intervals: BCa bootstrap over patients."
    if min(patients, default=FEW_PATIENTS) < FEW_PATIENTS:
        note += (
            " With few patients, as here, they are too narrow and hold the true mean less often than they say: where "
            "there is a test, it decides."
        )
    return note


def by_teachers(arms: Iterable[Arm]) -> list[Arm]:
    """Those alone first, then by the number of teachers."""
    return sorted(arms, key=lambda arm: len(arm.teachers))


def mean_of(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def deviation_of(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None
