"""Scores of whole cases: what is empty in both masks says nothing, wherever training takes a mean."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from TeachFormerCore.data.prepared import open_prepared
from TeachFormerCore.data.splits import FoldSplit
from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.teacher import Teacher
from TeachFormerCore.errors import InputError
from TeachFormerCore.networks import SegmentationNetwork
from TeachFormerCore.training.callbacks import Choice, MetricsFile
from TeachFormerCore.training.case_scores import CaseEvaluator, CaseScore, mean_dice
from TeachFormerCore.training.config import DistillationConfig, TrainConfig
from TeachFormerCore.training.final_scores import score_val_cases
from TeachFormerCore.training.teacher_weights import tune_dice_weights, weigh_teachers

CASES = ["P0", "P1", "P2", "P3"]


class Constant(SegmentationNetwork):
    """The same logit of the foreground in every voxel: nothing or everything."""

    def __init__(self, logit: float) -> None:
        super().__init__(in_channels=2, out_channels=2, spatial_dims=3, image_size=(32, 32, 32))
        self.logit = logit

    def maps(self, image: torch.Tensor, *, training_terms: bool = False) -> dict[str, torch.Tensor]:
        foreground = torch.full_like(image[:, :1], self.logit)
        return {
            "logits": torch.cat([-foreground, foreground], 1),
            "coarse": image[..., ::16, ::16, ::16],
            "fine": image,
        }


NOTHING, EVERYTHING = Constant(-4.0), Constant(4.0)


def blank(folder: Path, cases: Sequence[str]) -> None:
    """Takes the labels of some cases away."""
    for case in cases:
        arrays = load_file(folder / f"{case}.safetensors")
        save_file(arrays | {"label": np.zeros_like(arrays["label"])}, folder / f"{case}.safetensors")


@pytest.fixture
def evaluator(prepared_folder: Path) -> CaseEvaluator:
    """Of cases of which P0, P1 and P2 are empty."""
    blank(prepared_folder, CASES[:3])
    return CaseEvaluator(
        open_prepared(prepared_folder),
        loss=SegmentationLoss(),
        window=(32, 32, 32),
        device=torch.device("cpu"),
        bf16=False,
    )


def scored(*dice: dict[str, float | None]) -> list[CaseScore]:
    nothing = np.zeros(0)
    return [CaseScore(case=f"P{i}", loss=0.0, dice=each, label=nothing, logits=nothing) for i, each in enumerate(dice)]


def test_what_is_empty_in_both_masks_is_in_no_mean() -> None:
    assert mean_dice(scored({"a": 0.5, "b": None}, {"a": None, "b": None}, {"a": 0.0, "b": 0.2})) == pytest.approx(0.3)
    assert mean_dice(scored({"a": None})) is None
    assert mean_dice([]) is None


def test_predicting_nothing_scores_nothing_and_a_false_alarm_0(evaluator: CaseEvaluator) -> None:
    """Three of four cases are empty: with 1 for each, predicting nothing would score 0.75."""
    assert mean_dice(evaluator.score(NOTHING, case) for case in CASES) == 0
    assert mean_dice(evaluator.score(NOTHING, case) for case in CASES[:3]) is None
    assert [evaluator.score(EVERYTHING, case).mean_dice for case in CASES[:3]] == [0, 0, 0]


def test_a_teacher_that_finds_nothing_is_refused_among_empty_cases(evaluator: CaseEvaluator) -> None:
    records = [{"run": "idle", "weight": 1.0, "training_patients": [], "tuning_patients": []}]
    for tune_cases in (CASES, CASES[:3]):
        with pytest.raises(InputError, match=r"idle finds nothing in the tune cases"):
            weigh_teachers(
                [Teacher(name="idle", network=NOTHING)],
                records,
                settings=DistillationConfig(teacher_weighting="tune_dice"),
                split=FoldSplit(train_cases=("P4",), tune_cases=tuple(tune_cases), val_cases=("P5",)),
                evaluator=evaluator,
            )
    with pytest.raises(InputError, match=r"teacher b, c finds nothing in the tune cases \(Dice 0, or none"):
        tune_dice_weights([("a", 0.6), ("b", 0.0), ("c", None)])


def test_calibration_alone_takes_a_teacher_without_a_dice(evaluator: CaseEvaluator) -> None:
    _, [record] = weigh_teachers(
        [Teacher(name="idle", network=NOTHING)],
        [{"run": "idle", "weight": 1.0, "training_patients": [], "tuning_patients": []}],
        settings=DistillationConfig(calibrate=True),
        split=FoldSplit(train_cases=("P4",), tune_cases=tuple(CASES[:3]), val_cases=("P5",)),
        evaluator=evaluator,
    )
    assert record["tune"]["dice"] is None


@pytest.mark.parametrize(("cases", "dice"), [(CASES, "0"), (CASES[:3], "")])
def test_the_choice_goes_by_the_loss_whether_there_is_a_dice_or_not(
    evaluator: CaseEvaluator, tmp_path: Path, cases: list[str], dice: str
) -> None:
    choice = Choice(evaluator, cases, every=1, patience=3)
    metrics = MetricsFile(tmp_path / "metrics.csv", choice, ["dice"])
    optimizers = [SimpleNamespace(param_groups=[{"lr": 0.1}])]
    trainer = SimpleNamespace(is_global_zero=True, callback_metrics={}, optimizers=optimizers)
    module = SimpleNamespace(epoch=0, step=1, steps=2, task=SimpleNamespace(student=NOTHING))
    metrics.on_train_start(trainer, module)
    choice.on_train_epoch_end(trainer, module)
    metrics.on_train_epoch_end(trainer, module)
    assert choice.best_epoch == 0
    assert choice.best_loss < float("inf")
    with (tmp_path / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        [row] = csv.DictReader(stream)
    assert float(row["choice_loss"]) == pytest.approx(choice.best_loss, rel=1e-5)
    assert row["choice_dice"] == dice


def test_val_cases_and_subsets(evaluator: CaseEvaluator, config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    settings = config()
    dropping = config(augmentation=type(settings.augmentation)(channel_dropout=0.5))
    assert score_val_cases(settings, NOTHING, evaluator, CASES, tmp_path) == {"val_dice": 0, "subsets": {}}
    assert score_val_cases(dropping, NOTHING, evaluator, CASES[:3], tmp_path) == {
        "val_dice": None,
        "subsets": {"CT": None, "PET": None, "CT+PET": None},
    }
    stored = load_file(tmp_path / "predictions" / "P0.safetensors")
    assert stored["logits"].dtype == np.float16
    assert stored["logits"] == pytest.approx(-8, abs=0.01)
