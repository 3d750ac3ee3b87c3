"""How much each teacher counts, and how sure it may be: both measured on the fold's tune patients, on nobody else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..data.splits import FoldSplit
from ..distillation.teacher import Teacher
from ..errors import InputError
from ..evaluation.calibration import expected_calibration_error, fit_temperature
from ..progress import Progress
from .case_scores import CaseEvaluator, mean_dice
from .config import DistillationConfig

VOXELS_PER_CASE = 2**17  # drawn from larger cases for the calibration
DIGITS = 6  # what is computed is rounded, so that the manifest's figure is the one in use


@dataclass(frozen=True, kw_only=True)
class TuneLook:
    """What a teacher makes of the tune cases.

    Attributes:
        dice: see `mean_dice`; None where nothing is labelled and the teacher finds nothing.
        logits: log probabilities of the cases' voxels, ``(N, classes)``.
        label: of these voxels, ``(N,)``.
    """

    dice: float | None
    logits: Tensor
    label: Tensor


def weigh_teachers(
    teachers: Sequence[Teacher],
    records: Sequence[Mapping[str, Any]],
    *,
    settings: DistillationConfig,
    split: FoldSplit,
    evaluator: CaseEvaluator,
) -> tuple[list[Teacher], list[dict[str, Any]]]:
    """The teachers with their final weights and temperatures, and their records with what these were taken from.

    Args:
        teachers: with the configuration's weights.
        records: what the manifest says of them so far.
        settings: `teacher_weighting` and `calibrate`.
        split: of the student's fold; its tune cases are looked at, and only where something is measured.
        evaluator: of whole cases.

    Raises:
        InputError: no tune cases, one that a teacher was trained on, or a teacher that finds nothing there.
    """
    looks: list[TuneLook] = []
    if settings.calibrate or settings.teacher_weighting == "tune_dice":
        check_unseen(records, {evaluator.prepared.plan.patients[case] for case in split.tune_cases})
        with Progress(len(teachers) * len(split.tune_cases), "looking at the teachers' tune cases") as progress:
            looks = [look_at_tune(teacher, split.tune_cases, evaluator, progress) for teacher in teachers]
    weights = [teacher.weight for teacher in teachers]
    if settings.teacher_weighting == "uniform":
        weights = [round(1 / len(teachers), DIGITS)] * len(teachers)
    elif settings.teacher_weighting == "tune_dice":
        weights = tune_dice_weights([(teacher.name, look.dice) for teacher, look in zip(teachers, looks, strict=True)])
    made = [replace(teacher, weight=weight) for teacher, weight in zip(teachers, weights, strict=True)]
    if settings.calibrate:
        temperatures = [round(fit_temperature(look.logits, look.label), DIGITS) for look in looks]
        made = [replace(teacher, temperature=value) for teacher, value in zip(made, temperatures, strict=True)]
    described = [
        {**record, "weight": teacher.weight, "temperature": teacher.temperature}
        for record, teacher in zip(records, made, strict=True)
    ]
    for record, look in zip(described, looks, strict=False):
        record["tune"] = {
            "dice": None if look.dice is None else round(look.dice, DIGITS),
            "ece": round(tune_ece(look, 1.0), DIGITS),
            "ece_calibrated": round(tune_ece(look, record["temperature"]), DIGITS) if settings.calibrate else None,
        }
    return made, described


def tune_dice_weights(dice: Sequence[tuple[str, float | None]]) -> list[float]:
    """Weights in proportion to each teacher's Dice, their sum 1; one run may be several teachers, by other taps.

    Raises:
        InputError: a teacher with Dice 0, which would teach nothing, or with none, of which nothing is known.
    """
    useful = [value for _, value in dice if value]
    if len(useful) < len(dice):
        useless = ", ".join(name for name, value in dice if not value)
        raise InputError(
            f"The teacher {useless} finds nothing in the tune cases (Dice 0, or none where nothing is labelled): leave "
            "it out, or choose another distillation.teacher_weighting."
        )
    return [round(value / sum(useful), DIGITS) for value in useful]


def check_unseen(records: Sequence[Mapping[str, Any]], tune_patients: set[str]) -> None:
    """Refuses a measurement of teachers on patients whom they were trained on, or on none.

    Raises:
        InputError: naming the patients.
    """
    advice = "use distillation.teacher_weighting fixed or uniform and calibrate: false"
    if not tune_patients:
        raise InputError(f"There are no tune patients to weigh or calibrate the teachers on: {advice}.")
    for record in records:
        seen = sorted(tune_patients & set(record["training_patients"]))
        if seen:
            raise InputError(
                f"The teacher {record['run']} was trained on {', '.join(seen)}, whom this run keeps for tuning: how it "
                f"does there says nothing. Train it with this run's seed, which draws the tune patients, or {advice}."
            )


def look_at_tune(teacher: Teacher, cases: Sequence[str], evaluator: CaseEvaluator, progress: Progress) -> TuneLook:
    """A teacher's Dice and log probabilities on whole cases, in the student's windows."""
    scores, logits, labels = [], [], []
    for case in cases:
        probabilities = evaluator.probabilities(teacher.network, case)
        scores.append(evaluator.score_of(case, probabilities))
        voxels = probabilities.flatten(1).T.cpu()
        label = torch.from_numpy(evaluator.prepared.load(case)[1]).flatten()
        if len(label) > VOXELS_PER_CASE:
            drawn = torch.randperm(len(label), generator=torch.Generator().manual_seed(0))[:VOXELS_PER_CASE]
            voxels, label = voxels[drawn], label[drawn]
        logits.append(voxels.clamp_min(torch.finfo(voxels.dtype).tiny).log())
        labels.append(label)
        progress.advance()
    return TuneLook(dice=mean_dice(scores), logits=torch.cat(logits), label=torch.cat(labels))


def tune_ece(look: TuneLook, temperature: float) -> float:
    """Expected calibration error over all those voxels."""
    probabilities = (look.logits / temperature).softmax(1).T.numpy()
    return expected_calibration_error(probabilities, look.label.numpy())
