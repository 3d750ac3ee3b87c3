"""Eq. 2 in closed form: 0 on equal outputs, by hand on one voxel, direction, temperature, gradient."""

import math

import pytest
import torch
from torch.nn import functional as F

from TeachFormerCore.distillation.pixelwise_divergence import PixelwiseDivergence


def logits(seed: int = 0, classes: int = 2) -> torch.Tensor:
    return torch.randn(2, classes, 4, 5, 6, generator=torch.Generator().manual_seed(seed))


def one_voxel(probability: float) -> torch.Tensor:
    return torch.log(torch.tensor([1 - probability, probability])).reshape(1, 2, 1, 1, 1)


def test_equal_outputs_have_no_divergence() -> None:
    for direction in ("student_teacher", "teacher_student"):
        loss = PixelwiseDivergence(direction=direction, temperature=3.0)
        assert loss(logits(), logits() + 5).item() == pytest.approx(0, abs=1e-6)


def test_student_first_as_printed() -> None:
    """Bernoulli by hand: p = 0.8 against q = 0.5."""
    expected = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert PixelwiseDivergence()(one_voxel(0.8), one_voxel(0.5)).item() == pytest.approx(expected, rel=1e-5)
    reverse = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    hinton = PixelwiseDivergence(direction="teacher_student")
    assert hinton(one_voxel(0.8), one_voxel(0.5)).item() == pytest.approx(reverse, rel=1e-5)


def test_agrees_with_pytorch() -> None:
    student, teacher = logits(classes=3), logits(seed=1, classes=3)
    expected = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="none").sum(1).mean()
    torch.testing.assert_close(PixelwiseDivergence(direction="teacher_student")(student, teacher), expected)


def test_temperature_keeps_the_gradients_size() -> None:
    """For small differences T^2 KL(s/T, t/T) tends to a constant whatever T is."""
    small = 0.05 * logits(seed=3)
    values = [PixelwiseDivergence(temperature=t)(small, torch.zeros_like(small)).item() for t in (1.0, 4.0)]
    assert values[0] == pytest.approx(values[1], rel=0.02)


def test_gradient_goes_to_the_student_and_is_finite_at_extreme_logits() -> None:
    student = (1e3 * logits()).requires_grad_()
    PixelwiseDivergence()(student, 1e3 * logits(seed=1)).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_wrong_shapes_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="the same classes"):
        PixelwiseDivergence()(logits(), logits(classes=3))
    with pytest.raises(ValueError, match="direction"):
        PixelwiseDivergence(direction="both")
    with pytest.raises(ValueError, match="temperature"):
        PixelwiseDivergence(temperature=0)
