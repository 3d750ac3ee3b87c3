"""Statistics, detection and calibration, means over slices, and what was trained and what is still to come."""

from collections.abc import Iterator, Sequence

from ..detection import picai_score
from ..statistics import detectable_d_z
from .comparisons import ALPHA, MARGIN, METRIC, QUESTIONS, Comparison
from .context import (
    ARM,
    DICE,
    EMPTY,
    FALSE_ALARMS_NOTE,
    KIND,
    PATIENTS,
    Context,
    arm_cells,
    interval_note,
    mean_of,
)
from .table import Column, Table


def statistics(context: Context, comparisons: Sequence[Comparison]) -> Table | None:
    """The declared comparisons; None where no two arms can be compared yet."""
    if not comparisons:
        return None
    nothing = context.priors[0].results
    rows = []
    for one in comparisons:
        result = one.result
        rows.append(
            {
                "question": QUESTIONS[one.question],
                "first": one.first.title,
                "second": one.second.title,
                "patients": result.pairs,
                "difference": result.mean,
                "interval": result.interval,
                "confidence": result.confidence,
                "p_permutation": result.p_permutation,
                "p_holm": one.p_holm,
                "p_wilcoxon": result.p_wilcoxon,
                "d_z": result.d_z,
                "detectable_d_z": detectable_d_z(result.untied, alternative=one.alternative, alpha=ALPHA / one.tests),
                "rank_biserial": result.rank_biserial,
                "verdict": one.verdict + (" (interim)" if one.interim else ""),
            }
        )
    notes = [
        "Differences of Dice per patient, first minus second. Seeds are repeats, averaged for each patient first. "
        "p: sign-flip permutation test; Holm: corrected for all tests of the same question, planned ones without a "
        "result among them; Wilcoxon: signed-rank test, beside it.",
        interval_note(one.result.pairs for one in comparisons),
        f"Non-inferiority is one-sided: the null is that the student is worse by {100 * MARGIN:g} Dice points or more. "
        f"Its interval is of {100 - 200 * ALPHA:g} %: its lower end is the bound of the one-sided test at "
        f"{100 * ALPHA:g} %.",
        "Detectable d_z: the smallest effect in normal differences that the sign-flip test finds four times in five at "
        f"{100 * ALPHA:g} % over the number of tests of the question, the level at which Holm begins (for "
        "non-inferiority, of the difference plus the margin). What is not shown is not thereby absent.",
        f"Predicting nothing scores Dice {nothing.mean(METRIC) or 0:.3f} on these patients. {context.empty_note()}",
    ]
    if not all(one.can_be_shown for one in comparisons):
        notes.append(
            "Cannot be shown: even if all patients differed in one direction, by whatever amount, so few of them could "
            f"not bring the corrected p of so many tests down to {100 * ALPHA:g} %. That says nothing of the effect."
        )
    if nothing.empty:
        notes.append(FALSE_ALARMS_NOTE)
    if any(one.interim for one in comparisons):
        notes.append("Interim: runs of one of the two arms, or of a teacher, are not finished; the result may change.")
    return Table(
        name="statistics",
        title="Statistics",
        about="The declared comparisons, each question a family of its own.",
        columns=(
            Column(key="question", title="Question"),
            Column(key="first", title="First"),
            Column(key="second", title="Second"),
            PATIENTS,
            Column(key="difference", title="Difference (Dice points)", decimals=1, scale=100),
            Column(key="interval", title="Interval", decimals=1, scale=100),
            Column(key="confidence", title="of (%)", decimals=0, scale=100),
            Column(key="p_permutation", title="p", decimals=4, least=1e-4),
            Column(key="p_holm", title="p, Holm", decimals=4, least=1e-4),
            Column(key="p_wilcoxon", title="p, Wilcoxon", decimals=4, least=1e-4),
            Column(key="d_z", title="d_z", decimals=2),
            Column(key="detectable_d_z", title="Detectable d_z", decimals=2),
            Column(key="rank_biserial", title="Rank-biserial", decimals=2),
            Column(key="verdict", title="At 5 %"),
        ),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def detection_and_calibration(context: Context) -> Table:
    """Lesions found and invented, PI-CAI's score, and whether probabilities mean what they say."""
    rows = []
    for arm in context.arms:
        found = arm.results
        lesions = found.lesions
        row = arm_cells(arm) | {"precision": lesions.precision, "recall": lesions.recall, "f1": lesions.f1}
        row |= {"ece": found.calibration_error, "brier": found.brier}
        scores = [picai_score([r.detected for r in found.only(seed=seed).results]) for seed in found.seeds]
        row |= {key: mean_of([value for one in scores if (value := one[key]) is not None]) for key in scores[0]}
        rows.append(row)
    return Table(
        name="detection_and_calibration",
        title="Detection and calibration",
        about=f"Lesions of all patients together. {context.empty_note()}",
        columns=(
            ARM,
            KIND,
            Column(key="precision", title="Lesion precision", decimals=3),
            Column(key="recall", title="Lesion recall", decimals=3),
            Column(key="f1", title="Lesion F1", decimals=3),
            Column(key="auroc", title="AUROC", decimals=3),
            Column(key="average_precision", title="AP", decimals=3),
            Column(key="score", title="PI-CAI score", decimals=3),
            Column(key="ece", title="ECE", decimals=4),
            Column(key="brier", title="Brier", decimals=4),
            EMPTY,
        ),
        rows=tuple(rows),
        notes=(
            "Lesions are parts connected by faces, edges or corners; two are matched at an IoU of at least 0.1, each "
            "at most once. AUROC and AP as PI-CAI defines them (a part of more than 10 voxels with a probability of at "
            "least 0.1 is a candidate, its highest probability the confidence), their mean is PI-CAI's score; AUROC "
            "exists only where some patients have no lesion.",
            "ECE (15 bins, confidence of the most probable class) and Brier score (summed over classes) are over all "
            "voxels, most of which are easy background.",
        ),
    )


def slice_means(context: Context) -> Table | None:
    """Means over 2D slices, beside volume-level ones; None where neither network nor dataset is of slices."""
    if len(context.study.example.window) == 3 and "picai" not in context.source.dataset.casefold().replace("-", ""):
        return None
    nothing = context.priors[0].results
    total = sum(result.slices for result in nothing.results)
    empty = sum(result.empty_slices for result in nothing.results)
    rows = [arm_cells(arm) | {"slice_dice": arm.results.slice_dice} for arm in context.arms]
    return Table(
        name="slice_means",
        title="Means over slices",
        about=f"As some papers report them, beside the volume-level Dice. {empty} of {total} slices are empty in the "
        f"reference and count 1 where nothing is predicted. {context.empty_note()}",
        columns=(ARM, KIND, DICE, Column(key="slice_dice", title="Mean over slices", decimals=3), EMPTY),
        rows=tuple(rows),
        notes=(f"Predicting nothing reads {nothing.slice_dice:.3f} in the mean over slices: judge by the volumes.",),
    )


def runs(context: Context) -> Table:
    """What was trained, and what is still to come."""
    rows = []
    for arm in context.arms:
        if arm.example is None:
            continue
        seconds = mean_of(
            [run.manifest["seconds_per_step"] for run in arm.runs if run.manifest.get("seconds_per_step")]
        )
        rows.append(
            {
                "arm": arm.title,
                "network": arm.network,
                "teachers": " + ".join(arm.teachers),
                "finished": f"{len(arm.runs)} of {len(arm.runs) + len(arm.missing)}",
                "folds": ", ".join(map(str, arm.results.folds)),
                "seeds": ", ".join(map(str, arm.results.seeds)),
                "protocol": arm.example.config["protocol"],
                "steps": mean_of([run.manifest["steps"] for run in arm.runs]),
                "seconds": seconds,
                "device": ", ".join(sorted({run.manifest["device"] for run in arm.runs})),
                "precision": ", ".join(sorted({run.manifest["precision"] for run in arm.runs})),
            }
        )
    waiting = [
        {"arm": name.replace("_", " "), "finished": f"0 of {sum(one.arm == name for one in context.study.unfinished)}"}
        for name in dict.fromkeys(one.arm for one in context.study.unfinished)
        if name not in [arm.name for arm in context.arms]
    ]
    return Table(
        name="runs",
        title="Runs",
        about="What was trained. A run is scored on the patients that its fold kept out.",
        columns=(
            ARM,
            Column(key="network", title="Network"),
            Column(key="teachers", title="Teachers"),
            Column(key="finished", title="Runs finished"),
            Column(key="folds", title="Folds"),
            Column(key="seeds", title="Seeds"),
            Column(key="protocol", title="Protocol"),
            Column(key="steps", title="Steps", decimals=0),
            Column(key="seconds", title="Seconds per step", decimals=3),
            Column(key="device", title="Device"),
            Column(key="precision", title="Precision"),
        ),
        rows=(*rows, *waiting),
        notes=tuple(_step_costs(context)),
    )


def _step_costs(context: Context) -> Iterator[str]:
    """What a step costs beside one of another arm, where an arm was given as many steps as take the other's time."""
    arms = {arm.name: arm for arm in context.arms}
    for name, of in context.study.seconds_of.items():
        if name not in arms or of not in arms:
            continue
        ours, theirs = arms[name], arms[of]
        steps = {(run.fold, run.seed): run.manifest["steps"] for run in theirs.runs}
        # The configuration has the number that was fixed before the training, which may have stopped early.
        fixed = {(run.fold, run.seed): run.config["max_steps"] for run in ours.runs}
        ratio = mean_of([fixed[key] / steps[key] for key in fixed.keys() & steps.keys() if fixed[key] and steps[key]])
        if ratio is not None:
            outputs = theirs.distillation.get("teacher_outputs")
            yield (
                f"A step of {theirs.title}{f' (teacher outputs {outputs})' if outputs else ''} costs {ratio:.2f} times "
                f"a step of {ours.title}: both were measured in turns on one machine, to give the latter as many steps "
                "as take the former's time. The seconds above also hold what else the machine did."
            )


def unfinished(context: Context) -> Table | None:
    """Runs that are in no figure, and why; None where there is none."""
    waiting = context.study.unfinished
    if not waiting:
        return None
    return Table(
        name="unfinished",
        title="Not in the figures",
        about=f"{len(waiting)} of {len(waiting) + sum(len(arm.runs) for arm in context.arms)} runs are not finished or "
        "cannot be used.",
        columns=(
            ARM,
            Column(key="fold", title="Fold"),
            Column(key="seed", title="Seed"),
            Column(key="why", title="Why"),
        ),
        rows=tuple(
            {"arm": one.arm.replace("_", " "), "fold": one.fold, "seed": str(one.seed), "why": one.why}
            for one in waiting
        ),
    )
