"""Eq. 5 of MISSU in closed form, and whom its gradient reaches."""

import math

import pytest
import torch

from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.self_distillation import SelfDistillation
from TeachFormerCore.distillation.task import SegmentationTask
from TeachFormerCore.networks import build_network


def maps(channels: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(2, channels, size, size, size, generator=torch.Generator().manual_seed(seed))


def test_equal_and_scaled_maps_have_no_distance() -> None:
    x = maps(3, 4, 0)
    assert SelfDistillation()([(x, x), (x, -3 * x)]).item() < 1e-6


def test_by_hand_summed_over_the_stages() -> None:
    """(3, 4) and (4, 3) over 5: sqrt(2) / 5 a stage; 7 / 5 and 1 / 5 of nothing in common: sqrt(2)."""
    near = torch.tensor([3.0, 4.0]).reshape(1, 1, 2, 1, 1), torch.tensor([4.0, -3.0]).reshape(1, 1, 2, 1, 1)
    apart = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1), torch.tensor([0.0, 9.0]).reshape(1, 1, 2, 1, 1)
    assert SelfDistillation()([near]).item() == pytest.approx(math.sqrt(2) / 5, rel=1e-6)
    assert SelfDistillation()([near, apart]).item() == pytest.approx(math.sqrt(2) * 6 / 5, rel=1e-6)


def test_stored_number() -> None:
    """Computed once in float64 with numpy from the equation, not with this code."""
    pairs = [(maps(3, 4, 5), maps(3, 4, 6)), (maps(6, 2, 7), maps(6, 2, 8))]
    assert SelfDistillation()(pairs).item() == pytest.approx(0.9498896959, rel=1e-5)


@pytest.mark.parametrize(
    ("detach", "reaches"), [(None, (True, True)), ("skips", (False, True)), ("refined", (True, False))]
)
def test_either_side_can_be_detached(detach: str | None, reaches: tuple[bool, bool]) -> None:
    a, b = maps(3, 4, 0).requires_grad_(), maps(3, 4, 1).requires_grad_()
    SelfDistillation(detach=detach)([(a, b)]).backward()
    assert (a.grad is not None, b.grad is not None) == reaches


def test_float32_inside_autocast() -> None:
    a, b = maps(8, 16, 0).bfloat16(), maps(8, 16, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = SelfDistillation()([(a, b)])
    assert inside.dtype == torch.float32
    assert torch.equal(inside, SelfDistillation()([(a.float(), b.float())]))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="detach must be"):
        SelfDistillation(detach="both")
    with pytest.raises(ValueError, match="build it with its fusion blocks"):
        SelfDistillation()([])


def missu(**arguments: str) -> SegmentationTask:
    torch.manual_seed(0)
    network = build_network("missu", in_channels=1, out_channels=2, image_size=(16, 16, 32), filters=8, **arguments)
    return SegmentationTask(student=network, loss=SegmentationLoss(), weights={"self_distillation": 0.3})


def test_missu_learns_its_fusion_from_this_term() -> None:
    """Eq. 6: the task's term is 0.3 of Eq. 5, and each fusion parameter has a gradient from it alone."""
    task = missu(fusion="local").train()
    image = torch.randn(1, 1, 16, 16, 32, generator=torch.Generator().manual_seed(1))
    label = (image[:, 0] > 1).to(torch.uint8)
    assert task.term_names == ("dice", "focal", "self_distillation")
    terms = task(image, label)
    expected = SelfDistillation()(task.student.training_forward(image)["self_distillation"])
    torch.testing.assert_close(terms["self_distillation"], 0.3 * expected)
    fusion = list(task.student.fusion.parameters())
    for name in ("dice", "focal"):
        gradients = torch.autograd.grad(terms[name], fusion, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in gradients)
    terms["self_distillation"].backward()
    assert all(parameter.grad.any() for parameter in fusion)
    assert all(parameter.grad.any() for parameter in task.student.encoders[:3].parameters())
    assert set(task.eval()(image, label)) == {"dice", "focal"}


def test_without_fusion_blocks_there_is_no_such_term() -> None:
    assert missu().term_names == ("dice", "focal")
