"""Eq. 2 of Teach-Former: pixel-wise divergence, L_PWD, between a student's and a teacher's class probabilities."""

from math import log

import torch
from torch import Tensor, nn

FORMS = ("kl", "js")
DIRECTIONS = ("student_teacher", "teacher_student")


class PixelwiseDivergence(nn.Module):
    """A divergence per voxel, averaged over batch and voxels.

    ``kl`` is Kullback and Leibler's. ``student_teacher``, as printed: sum over classes of O_s (log O_s - log O_t), the
    student first. ``teacher_student``: sum of O_t (log O_t - log O_s), which at a temperature T is the distillation of
    Hinton et al. (2015). ``js`` is Jensen and Shannon's: the mean of both distributions' divergences from their mean;
    symmetric, and at most log 2 a voxel whatever the logits.

    A temperature T divides the logits, and the result is multiplied with T^2, which keeps the gradient's size.

    Args:
        form: one of ``FORMS``.
        direction: one of ``DIRECTIONS``; says nothing to ``js``.
        temperature: T, 1 in the paper.
        foreground_balanced: a sample's mean is half that of the voxels of the label's foreground and half that of the
            others, so that a small lesion is not outvoted; a sample without foreground has its plain mean.
    """

    def __init__(
        self,
        *,
        form: str = "kl",
        direction: str = "student_teacher",
        temperature: float = 1.0,
        foreground_balanced: bool = False,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"The form of Eq. 2 must be one of {', '.join(FORMS)}, not '{form}'.")
        if direction not in DIRECTIONS:
            raise ValueError(f"The direction of Eq. 2 must be one of {', '.join(DIRECTIONS)}, not '{direction}'.")
        if not temperature > 0:
            raise ValueError(f"The temperature must be above 0, not {temperature}.")
        self.form = form
        self.direction = direction
        self.temperature = temperature
        self.foreground_balanced = foreground_balanced

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor | None = None) -> Tensor:
        """The divergence of logits ``(B, classes, *S)`` of both, in float32 whatever the precision around it.

        Args:
            student: its logits.
            teacher: its logits, without gradient.
            label: ``(B, *S)``, 0 the background; needed for ``foreground_balanced`` only.

        Raises:
            ValueError: the shapes differ, or the label is missing.
        """
        if student.shape != teacher.shape:
            raise ValueError(
                f"The student's logits {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must have one "
                "shape: both need the same classes."
            )
        with torch.autocast(student.device.type, enabled=False):
            ours = (student.float() / self.temperature).log_softmax(1)
            theirs = (teacher.float() / self.temperature).log_softmax(1)
            if self.form == "js":
                middle = torch.logaddexp(ours, theirs) - log(2)
                per_voxel = (_divergence(ours, middle) + _divergence(theirs, middle)) / 2
            elif self.direction == "student_teacher":
                per_voxel = _divergence(ours, theirs)
            else:
                per_voxel = _divergence(theirs, ours)
            mean = _balanced_mean(per_voxel, label) if self.foreground_balanced else per_voxel.mean()
            return mean * self.temperature**2


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """Kullback-Leibler of log probabilities ``(B, classes, *S)``, per voxel."""
    return (first.exp() * (first - second)).sum(1)


def _balanced_mean(per_voxel: Tensor, label: Tensor | None) -> Tensor:
    """Foreground and background of each sample ``(B, *S)`` by half, a sample without one by the other."""
    if label is None or label.shape != per_voxel.shape:
        raise ValueError("A foreground-balanced divergence needs the label of the same batch.")
    values = per_voxel.flatten(1)
    sides = [(label > 0).flatten(1), (label <= 0).flatten(1)]
    means = torch.stack([(values * side).sum(1) / side.sum(1).clamp_min(1) for side in sides])
    present = torch.stack([side.any(1) for side in sides])
    return (means.sum(0) / present.sum(0)).mean()
