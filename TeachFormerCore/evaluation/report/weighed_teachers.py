"""Teachers as they were weighed and calibrated on the tune cases of their student's fold."""

from collections.abc import Sequence
from pathlib import Path

from .arms import Arm
from .context import ARM
from .table import Column, Table


def weighed_teachers(arms: Sequence[Arm]) -> Table | None:
    """A row for each teacher of each run that looked at its teachers' tune cases; None where none did."""
    rows = [
        {
            "arm": arm.title,
            "fold": run.fold,
            "seed": run.seed,
            "teacher": Path(record["run"]).name,
            "weight": record["weight"],
            "temperature": record["temperature"],
            **record["tune"],
        }
        for arm in arms
        for run in arm.runs
        for record in run.manifest["teachers"]
        if record.get("tune")
    ]
    if not rows:
        return None
    return Table(
        name="weighed_teachers",
        title="Teachers: weight and calibration",
        about="Measured on the tune cases of the student's fold, which no teacher was trained on and no figure is of.",
        columns=(
            ARM,
            Column(key="fold", title="Fold"),
            Column(key="seed", title="Seed"),
            Column(key="teacher", title="Teacher"),
            Column(key="dice", title="Dice on tune", decimals=3),
            Column(key="weight", title="Weight", decimals=3),
            Column(key="temperature", title="Temperature", decimals=3),
            Column(key="ece", title="ECE", decimals=4),
            Column(key="ece_calibrated", title="ECE, calibrated", decimals=4),
        ),
        rows=tuple(rows),
        notes=("A temperature above 1 says that the teacher was too sure of itself; its logits are divided by it.",),
    )
