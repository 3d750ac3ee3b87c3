"""Eq. 2 in closed form: 0 on equal outputs, by hand on one voxel, forms, temperature, balance, gradient."""

import math

import pytest
import torch
from torch.nn import functional as F

from TeachFormerCore.distillation.pixelwise_divergence import PixelwiseDivergence


def logits(seed: int = 0, classes: int = 2) -> torch.Tensor:
    return torch.randn(2, classes, 4, 5, 6, generator=torch.Generator().manual_seed(seed))


def one_voxel(probability: float) -> torch.Tensor:
    return torch.log(torch.tensor([1 - probability, probability])).reshape(1, 2, 1, 1, 1)


KINDS = [{"direction": "student_teacher"}, {"direction": "teacher_student"}, {"form": "js"}]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_outputs_have_no_divergence(kind: dict[str, str]) -> None:
    """Nor do those that differ by a constant, which softmax does not see; all others have one."""
    for balanced in (False, True):
        loss = PixelwiseDivergence(**kind, temperature=3.0, foreground_balanced=balanced)
        label = logits()[:, 0] > 0
        assert loss(logits(), logits() + 5, label).item() == pytest.approx(0, abs=1e-6)
        assert loss(logits(), logits(seed=1), label).item() > 1e-2


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


def test_jensen_shannon_by_hand_symmetric_and_bounded() -> None:
    """p = 0.8 against q = 0.5, middle 0.65; certain opposites are log 2 apart."""
    first = 0.8 * math.log(0.8 / 0.65) + 0.2 * math.log(0.2 / 0.35)
    second = 0.5 * math.log(0.5 / 0.65) + 0.5 * math.log(0.5 / 0.35)
    loss = PixelwiseDivergence(form="js")
    assert loss(one_voxel(0.8), one_voxel(0.5)).item() == pytest.approx((first + second) / 2, rel=1e-5)
    torch.testing.assert_close(loss(logits(), logits(seed=1)), loss(logits(seed=1), logits()))
    certain = torch.tensor([1e3, -1e3]).reshape(1, 2, 1, 1, 1)
    assert loss(certain, -certain).item() == pytest.approx(math.log(2), rel=1e-6)


def test_hintons_distillation() -> None:
    """Hinton et al. 2015: the cross-entropy with the softened teacher times T^2, but for the teacher's own entropy,
    which has no gradient; a logit's gradient is T (p_i - q_i), and 1/K (z_i - v_i) where T is large (their Eq. 4)."""
    student, teacher = logits(classes=3).double().requires_grad_(), logits(seed=1, classes=3).double()
    voxels, temperature = student[:, 0].numel(), 4.0
    soft = (teacher / temperature).softmax(1)
    cross_entropy = F.cross_entropy(student / temperature, soft) * temperature**2
    entropy = -(soft * soft.log()).sum(1).mean() * temperature**2
    loss = PixelwiseDivergence(direction="teacher_student", temperature=temperature)
    value = loss(student, teacher)
    assert value.item() == pytest.approx((cross_entropy - entropy).item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, student)
    expected = temperature * ((student / temperature).softmax(1) - soft) / voxels
    torch.testing.assert_close(gradient, expected, atol=1e-7, rtol=1e-4)

    hot = PixelwiseDivergence(direction="teacher_student", temperature=100.0)
    (gradient,) = torch.autograd.grad(hot(student, teacher), student)
    limit = (student - student.mean(1, keepdim=True) - teacher + teacher.mean(1, keepdim=True)) / 3 / voxels
    torch.testing.assert_close(gradient, limit, atol=0.03 * limit.abs().max().item(), rtol=0)


def test_foreground_and_background_count_half_each() -> None:
    """One foreground voxel among 8 with a divergence of its own: half of it, and half of the others' mean."""
    student, teacher = one_voxel(0.5).repeat(1, 1, 2, 2, 2), one_voxel(0.6).repeat(1, 1, 2, 2, 2)
    student[..., 0, 0, 0] = one_voxel(0.9)[..., 0, 0, 0]
    label = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    label[0, 0, 0, 0] = 1
    lesion = 0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4)
    rest = 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.4)
    balanced, plain = PixelwiseDivergence(foreground_balanced=True), PixelwiseDivergence()
    assert balanced(student, teacher, label).item() == pytest.approx((lesion + rest) / 2, rel=1e-5)
    assert plain(student, teacher, label).item() == pytest.approx((lesion + 7 * rest) / 8, rel=1e-5)
    for empty in (0 * label, 0 * label + 2):
        torch.testing.assert_close(balanced(student, teacher, empty), plain(student, teacher))
    both = balanced(student.repeat(2, 1, 1, 1, 1), teacher.repeat(2, 1, 1, 1, 1), torch.cat([label, 0 * label]))
    assert both.item() == pytest.approx((lesion + rest) / 4 + (lesion + 7 * rest) / 16, rel=1e-5)


def test_stored_numbers() -> None:
    """Computed once in float64 with numpy from the equations, not with this code."""
    student, teacher = logits(2, classes=3), logits(3, classes=3)
    label = torch.rand(2, 4, 5, 6, generator=torch.Generator().manual_seed(4)) > 0.8
    for (temperature, kind), stored in STORED.items():
        options = KINDS[kind] | {"temperature": temperature}
        for balanced, expected in zip((False, True), stored, strict=True):
            loss = PixelwiseDivergence(**options, foreground_balanced=balanced)
            assert loss(student, teacher, label).item() == pytest.approx(expected, rel=1e-5)


# Temperature and kind: plain mean, balanced mean.
STORED = {
    (1.0, 0): (0.510886734810, 0.485693076857),
    (1.0, 1): (0.495222837130, 0.475640829241),
    (1.0, 2): (0.109289415370, 0.105148320771),
    (3.0, 0): (0.619731204243, 0.589706256385),
    (3.0, 1): (0.615796900501, 0.586631562324),
    (3.0, 2): (0.151656431610, 0.144543501682),
}


def test_computed_in_float32_under_autocast() -> None:
    student, teacher = (8 * logits()).bfloat16(), logits(seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = PixelwiseDivergence()(student, teacher)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, PixelwiseDivergence()(student.float(), teacher.float()))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_goes_to_the_student_and_is_finite_at_extreme_logits(kind: dict[str, str]) -> None:
    student = (1e3 * logits()).requires_grad_()
    PixelwiseDivergence(**kind)(student, 1e3 * logits(seed=1)).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert PixelwiseDivergence(**kind)(logits().requires_grad_(), logits(seed=1)).requires_grad


def test_wrong_shapes_and_options_are_refused() -> None:
    with pytest.raises(ValueError, match="the same classes"):
        PixelwiseDivergence()(logits(), logits(classes=3))
    with pytest.raises(ValueError, match="needs the label of the same batch"):
        PixelwiseDivergence(foreground_balanced=True)(logits(), logits())
    with pytest.raises(ValueError, match="form of Eq. 2 must be one of kl, js"):
        PixelwiseDivergence(form="l2")
    with pytest.raises(ValueError, match="direction"):
        PixelwiseDivergence(direction="both")
    with pytest.raises(ValueError, match="temperature"):
        PixelwiseDivergence(temperature=0)
