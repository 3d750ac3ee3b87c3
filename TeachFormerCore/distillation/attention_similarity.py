"""Eq. 1 of Teach-Former: attention-feature similarity, L_AFS, between a student's and a teacher's map."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-12
# Under the root, so that equal maps have a finite gradient; 1e-8 would already equal the fine term at 144^3.
ROOT_EPSILON = 1e-16


class AttentionSimilarity(nn.Module):
    """One map's term of Eq. 1; the equation sums it over P and Q and over the teachers.

    ``paper``, as printed: the teacher's channels are linearly resampled to the student's number, each sample is divided
    by the sum of its absolute values (over channels and space), and the term is the Euclidean distance of the two.
    Its size falls with the square root of channels times voxels: at 144^3 it is some 2 % of the whole loss.

    ``balanced``, the attention transfer form that the paper cites (Zagoruyko and Komodakis 2017): absolute values are
    summed over the channels and divided by their Euclidean norm, so that no channels are resampled and the term lies
    in 0..sqrt(2) whatever the size.

    Args:
        mode: ``paper`` or ``balanced``.
    """

    def __init__(self, *, mode: str) -> None:
        super().__init__()
        if mode not in ("paper", "balanced"):
            raise ValueError(f"The mode of Eq. 1 must be 'paper' or 'balanced', not '{mode}'.")
        self.mode = mode

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over the batch, in float32 whatever the precision around it.

        Args:
            student: ``(B, K, *S)``.
            teacher: ``(B, K', *S)``, without gradient.

        Raises:
            ValueError: batch or spatial sizes differ.
        """
        if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
            raise ValueError(
                f"The student's map {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must have the same "
                "batch and spatial sizes: build both networks with the same taps."
            )
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = student.float(), teacher.float()
            if self.mode == "paper":
                teacher = resample_channels(teacher, student.shape[1])
                difference = _unit_sum(student) - _unit_sum(teacher)
            else:
                difference = _unit_length(student.abs().sum(1)) - _unit_length(teacher.abs().sum(1))
            return (difference.flatten(1).square().sum(1) + ROOT_EPSILON).sqrt().mean()


def resample_channels(x: Tensor, channels: int) -> Tensor:
    """``(B, K, *S)`` with another number of channels, linearly interpolated between neighbours; either way."""
    if x.shape[1] == channels:
        return x
    lines = x.flatten(2).transpose(1, 2)
    lines = F.interpolate(lines, size=channels, mode="linear", align_corners=False)
    return lines.transpose(1, 2).unflatten(2, x.shape[2:])


def _unit_sum(x: Tensor) -> Tensor:
    """Each sample over the sum of its absolute values; signs are kept."""
    total = x.flatten(1).abs().sum(1).clamp_min(EPSILON)
    return x / total.reshape(-1, *[1] * (x.dim() - 1))


def _unit_length(x: Tensor) -> Tensor:
    """Each sample over its Euclidean norm."""
    length = x.flatten(1).square().sum(1).add(EPSILON**2).sqrt()
    return x / length.reshape(-1, *[1] * (x.dim() - 1))
