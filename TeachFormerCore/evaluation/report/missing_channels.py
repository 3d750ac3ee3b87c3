"""One student for every subset of its channels: what each subset is worth, from runs with channel dropout."""

from collections.abc import Sequence

from .arm_results import average
from .arms import Arm
from .context import ARM
from .table import Column, Table


def missing_channels(arms: Sequence[Arm]) -> Table | None:
    """A row for each arm and subset, in the mean over its runs; None where no run was trained for subsets."""
    rows = []
    for arm in arms:
        measured = [run.manifest["subsets"] for run in arm.runs if run.manifest.get("subsets")]
        if not measured:
            continue
        means = {name: average(subsets.get(name) for subsets in measured) for name in measured[0]}
        full = list(means.values())[-1]  # the full set comes last
        for name, dice in means.items():
            lost = None if dice is None or full is None else full - dice
            rows.append({"arm": arm.title, "channels": name, "runs": len(measured), "dice": dice, "lost": lost})
    if not rows:
        return None
    return Table(
        name="missing_channels",
        title="Missing channels",
        about="Dice of the same network with fewer of its channels, mean over the val cases of its runs.",
        columns=(
            ARM,
            Column(key="channels", title="Channels"),
            Column(key="runs", title="Runs", decimals=0),
            Column(key="dice", title="Dice", decimals=3),
            Column(key="lost", title="Lost (Dice points)", decimals=1, scale=100),
        ),
        rows=tuple(rows),
        notes=(
            "A channel that is not there is 0 to the network, the background of a normalised image.",
            "Dice of a case is the mean over the labels that are in the reference or the prediction. A case that has "
            "none in either says nothing and is left out; a false alarm in an empty case counts 0. Every case counts "
            "alike, in a dataset of slices every slice: the other tables' Dice is the mean over patients.",
        ),
    )
