"""Eq. 1 of Teach-Former: attention-feature similarity, L_AFS, between a student's and a teacher's map."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FORMS = ("paper", "attention", "projected")
PRESETS = {"balanced": "attention"}  # the name in configurations and results
EPSILON = 1e-12
# Under the root, so that equal maps have a finite gradient; 1e-8 would already equal the fine term at 144^3.
ROOT_EPSILON = 1e-16


class AttentionSimilarity(nn.Module):
    """One map's term of Eq. 1; the equation sums it over P and Q and over the teachers.

    ``paper``, as printed: the teacher's channels are linearly resampled to the student's number, each sample is divided
    by the sum of its absolute values (over channels and space), and the term is the Euclidean distance of the two.
    Its size falls with the square root of channels times voxels: at 144^3 it is some 2 % of the whole loss.

    ``attention``, the attention transfer form that the paper cites (Zagoruyko and Komodakis 2017, their Eq. 2 with
    F_sum; their beta / 2 is the term's weight): absolute values are summed over the channels and divided by their
    Euclidean norm, so that no channels are resampled and the term lies in 0..sqrt(2) whatever the size.

    ``projected``, with all channels and at any size: the student's map comes through a learnt projection to the
    teacher's channels (``projection.py``), each sample is divided by its Euclidean norm over channels and space, and
    the term lies in 0..2.

    Args:
        mode: one of ``FORMS``, or ``balanced`` for ``attention``.
    """

    def __init__(self, *, mode: str) -> None:
        super().__init__()
        form = PRESETS.get(mode, mode)
        if form not in FORMS:
            raise ValueError(f"The mode of Eq. 1 must be one of {', '.join((*FORMS, *PRESETS))}, not '{mode}'.")
        self.form = form

    def target(self, teacher: Tensor, student_channels: int) -> Tensor:
        """What of a teacher's map ``(B, K', *S)`` the term compares with, in float32: all that a cache has to keep.

        ``paper``: ``(B, student_channels, *S)``; ``attention``: ``(B, 1, *S)``; ``projected``: the map itself. The
        target of a target is the same again, so that :meth:`forward` takes either.
        """
        with torch.autocast(teacher.device.type, enabled=False):
            teacher = teacher.float()
            if self.form == "paper":
                return resample_channels(teacher, student_channels)
            return teacher.abs().sum(1, keepdim=True) if self.form == "attention" else teacher

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over the batch, in float32 whatever the precision around it.

        Args:
            student: ``(B, K, *S)``; ``projected``: ``(B, K', *S)``.
            teacher: ``(B, K', *S)`` or its :meth:`target`, without gradient.

        Raises:
            ValueError: batch or spatial sizes differ, or channels without a projection.
        """
        if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
            raise ValueError(
                f"The student's map {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must have the same "
                "batch and spatial sizes: build both networks with the same taps."
            )
        if self.form == "projected" and student.shape[1] != teacher.shape[1]:
            raise ValueError(
                f"'projected' compares equal channels, not {student.shape[1]} with the teacher's {teacher.shape[1]}: "
                "project the student's map first."
            )
        with torch.autocast(student.device.type, enabled=False):
            target = self.target(teacher, student.shape[1])
            if self.form == "paper":
                return _distance(_unit_sum(student.float()), _unit_sum(target))
            return _distance(_unit_length(self.target(student, student.shape[1])), _unit_length(target))


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


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """The Euclidean distance of each sample, averaged over the batch."""
    return ((a - b).flatten(1).square().sum(1) + ROOT_EPSILON).sqrt().mean()
