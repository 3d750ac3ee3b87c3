"""Eq. 3 against closed forms, stored numbers and itself in another precision."""

import math

import pytest
import torch
from torch.nn import functional as F

from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss, focal_loss, soft_dice_loss


def logits_of(foreground: torch.Tensor) -> torch.Tensor:
    """Two-class logits whose softmax gives the foreground probability."""
    return torch.stack([torch.log1p(-foreground), torch.log(foreground)], 1)


def test_focal_with_gamma_0_is_cross_entropy() -> None:
    logits, label = torch.randn(2, 3, 5, 6, 7), torch.randint(0, 3, (2, 5, 6, 7))
    torch.testing.assert_close(focal_loss(logits, label, gamma=0.0), F.cross_entropy(logits, label))


def test_focal_of_one_voxel_by_hand() -> None:
    """p of the true class 0.75: -(0.25)^2 log 0.75; for the background voxel p is the BACKGROUND's probability."""
    logits = logits_of(torch.full((1, 1, 1), 0.75))
    expected = -(0.25**2) * math.log(0.75)
    assert focal_loss(logits, torch.ones(1, 1, 1)).item() == pytest.approx(expected, rel=1e-5)
    assert focal_loss(logits, torch.zeros(1, 1, 1)).item() == pytest.approx(-(0.75**2) * math.log(0.25), rel=1e-5)


def test_smoothed_focal_with_gamma_0_is_smoothed_cross_entropy() -> None:
    logits, label = torch.randn(2, 3, 5, 6, 7), torch.randint(0, 3, (2, 5, 6, 7))
    expected = F.cross_entropy(logits, label, label_smoothing=0.2)
    torch.testing.assert_close(focal_loss(logits, label, gamma=0.0, smoothing=0.2), expected)


def test_smoothing_by_hand() -> None:
    """p = 0.75 of the true class of two, 0.2 smoothed: 0.9 of the true class's term and 0.1 of the other's."""
    true, other = -(0.25**2) * math.log(0.75), -(0.75**2) * math.log(0.25)
    logits = logits_of(torch.full((1, 1, 1), 0.75))
    found = focal_loss(logits, torch.ones(1, 1, 1), smoothing=0.2)
    assert found.item() == pytest.approx(0.9 * true + 0.1 * other, rel=1e-5)


def test_smoothing_leaves_dice_alone() -> None:
    logits, label = torch.randn(1, 2, 4, 4, 4), torch.randint(0, 2, (1, 4, 4, 4))
    plain, smoothed = SegmentationLoss()(logits, label), SegmentationLoss(label_smoothing=0.1)(logits, label)
    assert torch.equal(plain["dice"], smoothed["dice"])
    assert not torch.equal(plain["focal"], smoothed["focal"])
    assert torch.equal(SegmentationLoss(label_smoothing=0.0)(logits, label)["focal"], plain["focal"])


def test_calling_everything_foreground_is_not_rewarded() -> None:
    """What the formula as printed would do: background voxels would pull p towards 1."""
    label = torch.zeros(1, 4, 4, 4)
    all_foreground, all_background = (
        logits_of(torch.full((1, 4, 4, 4), 0.99)),
        logits_of(torch.full((1, 4, 4, 4), 0.01)),
    )
    assert focal_loss(all_background, label) < 1e-4 < 1 < focal_loss(all_foreground, label)


def test_dice_by_hand() -> None:
    """p = 0.5 on 8 voxels, 2 labelled: 1 - 2 * 1 / (4 + 2) = 2/3."""
    label = torch.zeros(1, 2, 2, 2)
    label[0, 0, 0] = 1
    loss = soft_dice_loss(logits_of(torch.full((1, 2, 2, 2), 0.5)), label)
    assert loss.item() == pytest.approx(2 / 3, abs=1e-5)


def test_dice_is_per_sample_unless_told_otherwise() -> None:
    """Sample 1 perfect (loss 0), sample 2 missed (loss 1): mean 0.5; over the batch 1 - 2 * 4 / (4 + 8) = 1/3."""
    label = torch.zeros(2, 8)
    label[:, :4] = 1
    foreground = torch.full((2, 8), 1e-9)
    foreground[0, :4] = 1 - 1e-7
    logits = logits_of(foreground)
    assert soft_dice_loss(logits, label).item() == pytest.approx(0.5, abs=1e-4)
    assert soft_dice_loss(logits, label, whole_batch=True).item() == pytest.approx(1 / 3, abs=1e-4)


def test_empty_label_and_prediction_cost_nothing() -> None:
    logits = torch.tensor([20.0, -20.0]).reshape(1, 2, 1, 1, 1).expand(1, 2, 4, 4, 4)
    terms = SegmentationLoss()(logits, torch.zeros(1, 4, 4, 4))
    assert terms["dice"].item() < 1e-3
    assert terms["focal"].item() < 1e-6


def test_stored_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 8, 8, 8, generator=generator)
    label = (torch.rand(2, 8, 8, 8, generator=generator) > 0.9).to(torch.uint8)
    terms = SegmentationLoss()(logits, label)
    assert terms["dice"].item() == pytest.approx(STORED["dice"], abs=2e-6)
    assert terms["focal"].item() == pytest.approx(STORED["focal"], abs=2e-6)
    smoothed = SegmentationLoss(label_smoothing=0.1)(logits, label)["focal"]
    assert smoothed.item() == pytest.approx(STORED["smoothed"], abs=2e-6)


# Computed once in float64 with numpy from the sigmoid form, not with this code.
STORED = {"dice": 0.8538815137, "focal": 0.4532683528, "smoothed": 0.4580151740}


def test_computed_in_float32_under_autocast() -> None:
    logits, label = torch.randn(1, 2, 8, 8, 8) * 8, torch.randint(0, 2, (1, 8, 8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = SegmentationLoss()(logits.bfloat16(), label)
    outside = SegmentationLoss()(logits.bfloat16().float(), label)
    for name, value in inside.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, outside[name])


def test_gradient_is_finite_at_extreme_logits() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]]).reshape(1, 2, 2, 1, 1).requires_grad_()
    sum(SegmentationLoss()(logits, torch.ones(1, 2, 1, 1)).values()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        SegmentationLoss()(torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="focal_gamma"):
        SegmentationLoss(focal_gamma=-1)
    with pytest.raises(ValueError, match="label_smoothing"):
        SegmentationLoss(label_smoothing=1.0)
