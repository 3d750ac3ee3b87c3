"""What the tables are made of, and the cells that they share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np

from ..statistics import bca_interval
from .arm_results import ArmResults
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
MISSED = Column(key="missed", title="Missed", decimals=0)
EMPTY = Column(key="empty", title="Empty", decimals=0)
PAPER_DICE = Column(key="paper_dice", title="Paper: Dice", decimals=4)
PAPER_IOU = Column(key="paper_iou", title="Paper: IoU", decimals=4)
PAPER_ROW = Column(key="paper", title="Paper: row")
PAPER = (PAPER_DICE, PAPER_IOU, PAPER_ROW)
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
        if arm.example is None:
            return None
        networks = {other.name: other.network for other in self.arms}
        return paper_row(
            self.source, arm.network, [networks.get(name, "") for name in arm.teachers], split=split, note=tables
        )

    def volume_note(self) -> str:
        """What the figures are of."""
        x, y, z = self.cohort.spacing
        return (
            f"Volume-level, on the model's grid ({x:g} x {y:g} x {z:g} mm), mean over patients; seeds and cases of a "
            f"patient are averaged first. {self.empty_note()}"
        )

    def empty_note(self) -> str:
        """How many labels there is nothing to find of."""
        nothing = self.priors[0].results
        rows = len({(one.case, one.label) for result in nothing.results for one in result.scores})
        return f"{nothing.empty} of {rows} reference labels are empty."


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
    ours, theirs = arm.results.values(METRIC), alone.results.values(METRIC)
    return mean_of([ours[name] - theirs[name] for name in ours.keys() & theirs.keys()])


def by_teachers(arms: Iterable[Arm]) -> list[Arm]:
    """Those alone first, then by the number of teachers."""
    return sorted(arms, key=lambda arm: len(arm.teachers))


def mean_of(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def deviation_of(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None
