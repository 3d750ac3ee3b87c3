"""Weights and temperatures of teachers: closed forms, and nothing but tune patients is looked at."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from TeachFormerCore.data.prepared import PreparedData, open_prepared
from TeachFormerCore.data.splits import FoldSplit
from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.teacher import Teacher
from TeachFormerCore.errors import InputError
from TeachFormerCore.networks import SegmentationNetwork
from TeachFormerCore.training.case_scores import CaseEvaluator
from TeachFormerCore.training.config import DistillationConfig, TeacherConfig, TrainConfig
from TeachFormerCore.training.teacher_weights import check_unseen, tune_dice_weights, weigh_teachers

SPLIT = FoldSplit(train_cases=("P0", "P1"), tune_cases=("P2", "P3"), val_cases=("P4",))


class Thresholder(SegmentationNetwork):
    """Logits +-``steepness`` by a threshold on the second channel: the truth where the noise allows it."""

    def __init__(self, *, steepness: float, threshold: float = 0.75) -> None:
        super().__init__(in_channels=2, out_channels=2, spatial_dims=3, image_size=(32, 32, 32))
        self.steepness = steepness
        self.threshold = threshold

    def maps(self, image: torch.Tensor, *, training_terms: bool = False) -> dict[str, torch.Tensor]:
        foreground = self.steepness * (image[:, 1:] - self.threshold)
        logits = torch.cat([-foreground, foreground], 1)
        return {"logits": logits, "coarse": image[..., ::16, ::16, ::16], "fine": image}


class Watched(CaseEvaluator):
    """Remembers whose images were looked at."""

    def __init__(self, prepared: PreparedData) -> None:
        super().__init__(prepared, loss=SegmentationLoss(), window=(32, 32, 32), device=torch.device("cpu"), bf16=False)
        self.looked: list[str] = []

    def probabilities(self, network: SegmentationNetwork, case: str, **options: object) -> torch.Tensor:
        self.looked.append(case)
        return super().probabilities(network, case, **options)  # type: ignore[arg-type]


@pytest.fixture
def evaluator(prepared_folder: Path) -> Watched:
    return Watched(open_prepared(prepared_folder))


def teachers(**thresholds: float) -> list[Teacher]:
    return [Teacher(name=name, network=Thresholder(steepness=3, threshold=t)) for name, t in thresholds.items()]


def records(*names: str, seen: str = "P0") -> list[dict[str, object]]:
    return [{"run": name, "weight": 1.0, "training_patients": [seen], "tuning_patients": ["P2"]} for name in names]


def test_weights_in_proportion_to_dice() -> None:
    assert tune_dice_weights([("a", 0.6), ("b", 0.2)]) == pytest.approx([0.75, 0.25])
    with pytest.raises(InputError, match=r"teacher b finds nothing"):
        tune_dice_weights([("a", 0.6), ("b", 0.0)])


def test_fixed_and_uniform_look_at_nobody(evaluator: Watched) -> None:
    three = teachers(a=0.75, b=0.75, c=0.75)
    for weighting, expected in (("fixed", 1.0), ("uniform", 1 / 3)):
        settings = DistillationConfig(teacher_weighting=weighting)
        made, described = weigh_teachers(
            three, records("a", "b", "c"), settings=settings, split=SPLIT, evaluator=evaluator
        )
        assert [teacher.weight for teacher in made] == pytest.approx([expected] * 3, abs=1e-6)
        assert [record["weight"] for record in described] == [teacher.weight for teacher in made]
        assert all("tune" not in record and record["temperature"] == 1 for record in described)
    assert not evaluator.looked


def test_tune_dice_looks_at_the_tune_cases_and_at_no_other(evaluator: Watched) -> None:
    settings = DistillationConfig(teacher_weighting="tune_dice")
    made, described = weigh_teachers(
        teachers(good=0.75, worse=1.6), records("good", "worse"), settings=settings, split=SPLIT, evaluator=evaluator
    )
    assert set(evaluator.looked) == {"P2", "P3"}
    dice = [record["tune"]["dice"] for record in described]  # type: ignore[index]
    assert dice[0] > 0.95 > dice[1] > 0
    assert [teacher.weight for teacher in made] == pytest.approx([value / sum(dice) for value in dice], abs=1e-5)
    assert [teacher.temperature for teacher in made] == [1.0, 1.0]


def test_one_run_may_teach_twice_by_other_taps(evaluator: Watched) -> None:
    settings = DistillationConfig(teacher_weighting="tune_dice")
    twice = [*teachers(same=0.75), *teachers(same=0.75)]
    made, _ = weigh_teachers(twice, records("same", "same"), settings=settings, split=SPLIT, evaluator=evaluator)
    assert [teacher.weight for teacher in made] == [0.5, 0.5]


def test_calibration_divides_out_a_known_temperature(evaluator: Watched) -> None:
    """Two teachers with the same answers but for a factor of 4 are one teacher after calibration."""
    pair = [Teacher(name=name, network=Thresholder(steepness=s, threshold=1.4)) for name, s in (("x", 2), ("y", 8))]
    made, described = weigh_teachers(
        pair, records("x", "y"), settings=DistillationConfig(calibrate=True), split=SPLIT, evaluator=evaluator
    )
    assert set(evaluator.looked) == {"P2", "P3"}
    soft, sharp = (teacher.temperature for teacher in made)
    assert sharp == pytest.approx(4 * soft, rel=0.01)
    for record in described:
        assert record["tune"]["ece_calibrated"] <= record["tune"]["ece"]  # type: ignore[index]
    image = torch.randn(1, 2, 32, 32, 32)
    first, second = (teacher.maps(image).logits for teacher in made)
    torch.testing.assert_close(first, second, rtol=0.02, atol=1e-3)
    assert [teacher.weight for teacher in made] == [1.0, 1.0]


def test_a_teacher_is_not_measured_on_whom_it_was_trained_on(evaluator: Watched) -> None:
    for settings in (DistillationConfig(teacher_weighting="tune_dice"), DistillationConfig(calibrate=True)):
        with pytest.raises(InputError, match=r"teacher a was trained on P3.*this run's seed"):
            weigh_teachers(
                teachers(a=0.75), records("a", seen="P3"), settings=settings, split=SPLIT, evaluator=evaluator
            )
    assert not evaluator.looked
    with pytest.raises(InputError, match="no tune patients"):
        check_unseen(records("a"), set())


def test_given_weights_belong_to_fixed(config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(InputError, match="weights of teachers are for"):
        config(
            teachers=[TeacherConfig(run="a", weight=2.0)],
            distillation=DistillationConfig(teacher_weighting="uniform"),
        )
