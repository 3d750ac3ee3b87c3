"""The four tables of Teach-Former's kinds, the paper's own figures beside ours.

Each has the rows that need no training, predicting nothing among them, and says how many labels are empty.
"""

from ..scores import MISSU_METRICS, SURFACE_DICE_TOLERANCE_MM, mean_scores, reports_like_missu
from .arms import student_alone
from .comparisons import METRIC
from .context import (
    ARM,
    COUNTS_NOTE,
    DICE,
    EMPTY,
    INTERVAL,
    IOU,
    KIND,
    MISSED,
    PAPER,
    PAPER_DICE,
    PAPER_IOU,
    PAPER_ROW,
    PATIENTS,
    PRIORS_NOTE,
    Context,
    arm_cells,
    by_teachers,
    deviation_of,
    gain,
    interval_note,
    mean_of,
    paper_cells,
)
from .table import Column, Table

SCORES_AND_GAIN = (
    PATIENTS,
    DICE,
    INTERVAL,
    Column(key="gain", title="Gain (Dice points)", decimals=1, scale=100),
    IOU,
    EMPTY,
    *PAPER,
)


def size_and_accuracy(context: Context) -> Table:
    """Table 1: parameters, operations, Dice and IoU."""
    like_missu = reports_like_missu(context.cohort.dataset)
    shared = {len(arm.results.patients) for arm in context.arms} != {len(context.common)}
    rows = []
    for arm in context.arms:
        found, paper = arm.results, None
        if arm.is_as_published:
            paper = context.paper(arm, "Table 1", "Table 3")
        row = arm_cells(arm) | paper_cells(paper)
        if arm.facts:
            row |= {"parameters": arm.facts.parameters, "flops": arm.facts.flops, "macs": arm.facts.flops // 2}
        if paper:
            row |= {"paper_parameters": paper.parameters, "paper_gflops": paper.gflops}
        row |= {metric: found.mean(metric) for metric in ("surface_dice", "hd95_mm", "volume_error_ml")}
        row["absolute_volume_error_ml"] = found.absolute_volume_error_ml
        row["dice_common"] = found.mean(METRIC, context.common)
        if like_missu:
            row |= mean_scores((one for result in found.results for one in result.scores), MISSU_METRICS)
        rows.append(row)
    window = " x ".join(map(str, context.study.example.window))
    columns = [
        *(ARM, KIND, Column(key="network", title="Network")),
        Column(key="parameters", title="Parameters (M)", decimals=2, scale=1e-6),
        Column(key="macs", title="MACs (G)", decimals=2, scale=1e-9),
        Column(key="flops", title="FLOPs (G)", decimals=2, scale=1e-9),
        *(PATIENTS, DICE, INTERVAL, IOU),
        Column(key="surface_dice", title=f"Surface Dice {SURFACE_DICE_TOLERANCE_MM:g} mm", decimals=3),
        Column(key="hd95_mm", title="HD95 (mm)", decimals=1),
        Column(key="volume_error_ml", title="Volume error (mL)", decimals=1),
        Column(key="absolute_volume_error_ml", title="Absolute volume error (mL)", decimals=1),
        *(MISSED, EMPTY),
        Column(key="paper_parameters", title="Paper: parameters (M)", decimals=2),
        Column(key="paper_gflops", title='Paper: "GFLOPs"', decimals=2),
        *PAPER,
    ]
    if shared:
        title = f"Dice, {len(context.common)} common patients"
        columns.insert(columns.index(IOU), Column(key="dice_common", title=title, decimals=3))
    if like_missu:
        at = columns.index(MISSED)
        columns[at:at] = [
            Column(key="hd_mm", title="HD, maximum (mm)", decimals=1),
            Column(key="accuracy", title="Accuracy", decimals=4),
        ]
    notes = [
        f"Parameters, MACs and FLOPs are counted on the network as it is used, for one window of {window} voxels. The "
        "paper's \"GFLOPs\" are a profiler's multiply-accumulates at its own image size, transposed convolutions "
        "counted several times.",
        interval_note(len(arm.results.patients) for arm in context.arms),
        "A missed label counts with Dice 0 and with the image's diagonal as its HD95. A label that is empty in both "
        "masks is counted and not scored, or has Dice 1 where another seed of the arm raises a false alarm there.",
        COUNTS_NOTE,
        "Volume error: prediction minus reference, positive where too much is segmented; errors of both signs cancel "
        "in its mean, and do not in that of the absolute error.",
        PRIORS_NOTE,
        f"The paper's figures: {context.source.about}.",
    ]
    if like_missu:
        notes.insert(2, "HD (maximum) and accuracy are here because MISSU reports them; one voxel decides the first.")
    return Table(
        name="table1_size_and_accuracy",
        title="Table 1. Size and accuracy",
        about=context.volume_note(),
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def cross_validation(context: Context) -> Table:
    """Table 2: mean and standard deviation over the folds."""
    folds = sorted({fold for arm in context.arms for fold in arm.results.folds}, key=str)
    rows = []
    for arm in context.arms:
        found, paper = arm.results, None
        if arm.is_as_published:
            paper = context.paper(arm, "Table 2", split="cv5")
        row = arm_cells(arm) | {f"fold_{fold}": found.only(fold=fold).mean(METRIC) for fold in folds}
        for metric in ("dice", "iou"):
            means = found.fold_means(metric)
            row |= {f"{metric}_mean": mean_of(means), f"{metric}_sd": deviation_of(means)}
        row |= {"folds": len(found.folds), "seeds": len(found.seeds), "seed_sd": deviation_of(found.seed_means(METRIC))}
        if paper:
            row |= {"paper_dice": paper.dice, "paper_dice_sd": paper.dice_sd, "paper_iou": paper.iou}
            row["paper"] = paper.source
        rows.append(row)
    columns = [
        ARM,
        KIND,
        Column(key="folds", title="Folds", decimals=0),
        Column(key="seeds", title="Seeds", decimals=0),
        *(Column(key=f"fold_{fold}", title=f"Fold {fold}: Dice", decimals=3) for fold in folds),
        Column(key="dice_mean", title="Dice, mean", decimals=3),
        Column(key="dice_sd", title="SD over folds", decimals=3),
        Column(key="iou_mean", title="IoU, mean", decimals=3),
        Column(key="iou_sd", title="IoU, SD", decimals=3),
        Column(key="seed_sd", title="Dice, SD over seeds", decimals=3),
        EMPTY,
        PAPER_DICE,
        Column(key="paper_dice_sd", title="Paper: SD", decimals=4),
        PAPER_IOU,
        PAPER_ROW,
    ]
    return Table(
        name="table2_cross_validation",
        title="Table 2. Cross-validation",
        about=f"Mean Dice of each fold's kept-out patients, then mean and standard deviation over the folds; never the "
        f"best fold. {context.volume_note()}",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(PRIORS_NOTE, f"The paper's figures: {context.source.about}."),
    )


def number_of_teachers(context: Context) -> Table | None:
    """Table 3: which teachers, and how many, with all terms of Eq. 4; None where nothing was distilled so."""
    distilled = [arm for arm in context.arms if arm.kind == "distilled" and arm.is_as_published]
    if not distilled:
        return None
    teachers = list(dict.fromkeys(name for arm in distilled for name in arm.teachers))
    alone = {one.name: one for arm in distilled if (one := student_alone(arm, context.arms))}
    rows = []
    for arm in by_teachers([*alone.values(), *distilled]) + context.priors:
        row = arm_cells(arm) | {f"teacher_{name}": "x" if name in arm.teachers else "" for name in teachers}
        row |= {"form": arm.distillation.get("mode", ""), "count": len(arm.teachers), "gain": gain(arm, context)}
        row |= paper_cells(context.paper(arm, "Table 3" if arm.teachers else "Table 1"))
        rows.append(row)
    return Table(
        name="table3_number_of_teachers",
        title="Table 3. Number of teachers",
        about=f"The student alone and taught. The gain is over the student alone on the same patients. "
        f"{context.volume_note()}",
        columns=(
            ARM,
            *(Column(key=f"teacher_{name}", title=name.replace("_", " ")) for name in teachers),
            Column(key="count", title="Teachers", decimals=0),
            Column(key="form", title="Form of Eq. 1"),
            *SCORES_AND_GAIN,
        ),
        rows=tuple(rows),
        notes=(f"The paper's figures: {context.source.about}.",),
    )


def loss_terms(context: Context) -> Table | None:
    """Table 4: which terms of Eq. 4; None where nothing was distilled."""
    distilled = [arm for arm in context.arms if arm.kind == "distilled"]
    if not distilled:
        return None
    alone = {one.name: one for arm in distilled if (one := student_alone(arm, context.arms))}
    names = {(True, False): "L_AFS only", (False, True): "L_PWD only", (True, True): "L_AFS+L_PWD"}
    rows = []
    for arm in by_teachers([*alone.values(), *distilled]) + context.priors:
        settings, note = arm.distillation, "Table 1"
        if arm.teachers:
            note = f"Table 4 losses={names.get(arm.terms, 'none')}"
        row = arm_cells(arm) | {"teachers": " + ".join(arm.teachers), "gain": gain(arm, context)}
        row |= {key: settings.get(key, "") for key in ("mode", "similarity_coarse", "similarity_fine", "divergence")}
        row |= {"balancing": settings.get("balancing", "")} | paper_cells(context.paper(arm, note))
        rows.append(row)
    return Table(
        name="table4_loss_terms",
        title="Table 4. Loss terms",
        about=f"Weights of Eq. 1 on P (coarse) and Q (fine) and of Eq. 2; every row has Eq. 3. {context.volume_note()}",
        columns=(
            ARM,
            Column(key="teachers", title="Teachers"),
            Column(key="mode", title="Form of Eq. 1"),
            Column(key="similarity_coarse", title="Eq. 1, P", decimals=2),
            Column(key="similarity_fine", title="Eq. 1, Q", decimals=2),
            Column(key="divergence", title="Eq. 2", decimals=2),
            Column(key="balancing", title="Balancing"),
            *SCORES_AND_GAIN,
        ),
        rows=tuple(rows),
        notes=(f"The paper's figures: {context.source.about}.",),
    )
