"""Eq. 3 of Teach-Former: the segmentation loss, focal + Dice."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMOOTH = 1e-5


def soft_dice_loss(logits: Tensor, label: Tensor, *, whole_batch: bool = False) -> Tensor:
    """1 - (2 sum p t + s) / (sum p + sum t + s), s = 1e-5, over the foreground classes; no squares.

    Args:
        logits: ``(B, classes, *S)``, class 0 the background.
        label: ``(B, *S)``, whole numbers.
        whole_batch: sums over the batch too, which gives empty 2D slices a useful gradient; per sample otherwise.

    Returns:
        The mean over samples and foreground classes, in 0..1.
    """
    probability = logits.softmax(1)[:, 1:]
    target = F.one_hot(label.long(), logits.shape[1]).movedim(-1, 1)[:, 1:].to(probability)
    over = (0, *range(2, logits.dim())) if whole_batch else tuple(range(2, logits.dim()))
    overlap = (probability * target).sum(over)
    total = probability.sum(over) + target.sum(over)
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def focal_loss(logits: Tensor, label: Tensor, *, gamma: float = 2.0, smoothing: float = 0.0) -> Tensor:
    """Mean over batch and voxels of -(1 - p)^gamma log p, p the probability of the TRUE class.

    With gamma 0 it is cross-entropy. The paper prints p as the foreground's probability, which would reward calling
    everything foreground; the true-class form is the one its authors' earlier code has.

    Args:
        logits: ``(B, classes, *S)``.
        label: ``(B, *S)``, whole numbers.
        gamma: focusing parameter (Lin et al. 2017), 2 in the paper.
        smoothing: this part of the target is spread evenly over all classes (Szegedy et al. 2016), each of which then
            has its own such term.
    """
    log_p = logits.log_softmax(1)
    true = _focal(log_p.gather(1, label.long().unsqueeze(1)), gamma).mean()
    return true if smoothing == 0 else (1 - smoothing) * true + smoothing * _focal(log_p, gamma).mean()


def _focal(log_p: Tensor, gamma: float) -> Tensor:
    # -expm1 keeps 1 - p exact for p near 1.
    return -((-torch.expm1(log_p)) ** gamma) * log_p


class SegmentationLoss(nn.Module):
    """Eq. 3 as named terms, computed in float32 whatever the precision around it.

    Args:
        focal_gamma: gamma of the focal term.
        whole_batch_dice: see :func:`soft_dice_loss`.
        label_smoothing: of the focal term. Dice keeps the hard label: it is not the likelihood of a distribution, and
            its optimum on a softened target is still the hard one.
    """

    def __init__(
        self, *, focal_gamma: float = 2.0, whole_batch_dice: bool = False, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not (focal_gamma == 0 or 1 <= focal_gamma < float("inf")):
            # Below 1 the gradient of (1 - p)^gamma is infinite at p = 1.
            raise ValueError(f"focal_gamma must be 0 or at least 1, it is {focal_gamma}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in 0..1 (1 excluded), it is {label_smoothing}.")
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.whole_batch_dice = whole_batch_dice

    def forward(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """The terms ``dice`` and ``focal`` of logits ``(B, classes, *S)`` and label ``(B, *S)``."""
        if logits.shape[2:] != label.shape[1:] or logits.shape[0] != label.shape[0]:
            raise ValueError(f"logits {tuple(logits.shape)} and label {tuple(label.shape)} do not belong together.")
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            return {
                "dice": soft_dice_loss(logits, label, whole_batch=self.whole_batch_dice),
                "focal": focal_loss(logits, label, gamma=self.focal_gamma, smoothing=self.label_smoothing),
            }
