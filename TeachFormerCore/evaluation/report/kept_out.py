"""The cases that a whole cross-validation keeps out: the paper's way to test, and the mean over the folds beside it.

Teach-Former tests, of the models of the five folds, the one with the best score on its val cases. That choice looks at
no kept-out case, so the figure is honest; but it is of one model, and does not tell how much the folds' models differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .arm_results import ArmResults
from .arms import Arm
from .comparisons import METRIC, Comparison, against_alone, family
from .context import (
    ARM,
    COUNTS_NOTE,
    DICE,
    EMPTY,
    FALSE_ALARMS_NOTE,
    INTERVAL,
    IOU,
    KIND,
    MISSED,
    PAPER,
    PATIENTS,
    PRIORS_NOTE,
    Context,
    deviation_of,
    interval_note,
    mean_of,
    paper_cells,
    score_cells,
)
from .study import Fold
from .table import Column, Table


@dataclass(frozen=True, kw_only=True)
class Tested:
    """An arm on the cases kept out.

    Attributes:
        arm: it, with its results on the val cases.
        fold: whose models have the highest mean Dice on their own val cases; None for what needs no training.
        val_dice: that Dice.
        best: the results of that fold's models on the cases kept out.
        every: those of all folds' models.
    """

    arm: Arm
    fold: Fold | None
    val_dice: float | None
    best: ArmResults
    every: ArmResults


def kept_out_cases(context: Context, results: Mapping[str, ArmResults]) -> Table | None:
    """The table; None where no run was tested on such cases.

    Args:
        context: of the study.
        results: of `score_study` on the cases kept out.
    """
    tested = [best_fold(arm, results[arm.name]) for arm in context.arms if arm.name in results]
    if not tested:
        return None
    gains = _gains(tested)
    rows = []
    for one in tested:
        means = one.every.fold_means(METRIC)
        row = score_cells(one.arm, one.best) | {"best_fold": one.fold, "val_dice": one.val_dice}
        if one.fold is not None:
            row |= {"models": len(means), "models_mean": mean_of(means), "models_sd": deviation_of(means)}
        if one.arm.is_as_published:
            row |= paper_cells(context.paper(one.arm, "Table 1", "Table 3"))
        if gained := gains.get(one.arm.name):
            row |= {"gain": gained.result.mean, "gain_interval_95": gained.result.interval}
            row |= {"p_permutation": gained.result.p_permutation, "p_holm": gained.p_holm}
        rows.append(row)
    nothing = results[context.priors[0].name]
    labels = len({(each.case, each.label) for result in nothing.results for each in result.scores})
    notes = [
        "Gain: over the student alone, both by their best-val fold, on the same patients; sign-flip permutation "
        "test, Holm over this table.",
        interval_note(len(one.best.patients) for one in tested),
        *sorted({f"At 5 %, {one.verdict}." for one in gains.values() if not one.can_be_shown}),
        *([FALSE_ALARMS_NOTE] if nothing.empty else []),
        COUNTS_NOTE,
        PRIORS_NOTE,
        f"The paper's figures: {context.source.about}.",
    ]
    return Table(
        name="kept_out_cases",
        title="Cases kept out of the cross-validation",
        about="By the paper's protocol: of an arm's folds, the models of the one with the best Dice on its own val "
        f"cases, tested once; beside it the mean over the models of all folds. {nothing.empty:g} of {labels} reference "
        "labels are empty.",
        columns=(
            ARM,
            KIND,
            Column(key="best_fold", title="Best-val fold"),
            Column(key="val_dice", title="Its val Dice", decimals=3),
            PATIENTS,
            DICE,
            INTERVAL,
            IOU,
            MISSED,
            Column(key="models", title="Folds' models", decimals=0),
            Column(key="models_mean", title="Dice, mean over them", decimals=3),
            Column(key="models_sd", title="SD", decimals=3),
            Column(key="gain", title="Gain (Dice points)", decimals=1, scale=100),
            Column(key="gain_interval_95", title="95 % interval", decimals=1, scale=100),
            Column(key="p_permutation", title="p", decimals=4, least=1e-4),
            Column(key="p_holm", title="p, Holm", decimals=4, least=1e-4),
            EMPTY,
            *PAPER,
        ),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def best_fold(arm: Arm, results: ArmResults) -> Tested:
    """An arm by the fold that is best on its own val cases, of those whose models were tested."""
    if arm.kind == "prior":
        return Tested(arm=arm, fold=None, val_dice=None, best=results, every=results)
    val = {fold: arm.results.only(fold=fold).mean(METRIC) or 0.0 for fold in results.folds}
    fold = max(val, key=val.__getitem__)
    return Tested(arm=arm, fold=fold, val_dice=val[fold], best=results.only(fold=fold), every=results)


def _gains(tested: list[Tested]) -> dict[str, Comparison]:
    """Each distilled arm over its student alone."""
    arms = [replace(one.arm, results=one.best) for one in tested]
    pairs = [(arm, alone) for arm, alone in against_alone(arms, arms) if arm.kind == "distilled"]
    return {one.first.name: one for one in family("distillation", pairs, arms)}
