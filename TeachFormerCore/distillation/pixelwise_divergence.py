"""Eq. 2 of Teach-Former: pixel-wise divergence, L_PWD, between a student's and a teacher's class probabilities."""

import torch
from torch import Tensor, nn

DIRECTIONS = ("student_teacher", "teacher_student")


class PixelwiseDivergence(nn.Module):
    """Kullback-Leibler divergence per voxel, averaged over batch and voxels.

    ``student_teacher``, as printed: sum over classes of O_s (log O_s - log O_t), the student first. ``teacher_student``
    is Hinton's: sum of O_t (log O_t - log O_s). A temperature T divides the logits, and the result is multiplied with
    T^2, which keeps the gradient's size.

    Args:
        direction: one of ``DIRECTIONS``.
        temperature: T, 1 in the paper.
    """

    def __init__(self, *, direction: str = "student_teacher", temperature: float = 1.0) -> None:
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f"The direction of Eq. 2 must be one of {', '.join(DIRECTIONS)}, not '{direction}'.")
        if not temperature > 0:
            raise ValueError(f"The temperature must be above 0, not {temperature}.")
        self.direction = direction
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The divergence of logits ``(B, classes, *S)`` of both, in float32 whatever the precision around it.

        Raises:
            ValueError: the shapes differ.
        """
        if student.shape != teacher.shape:
            raise ValueError(
                f"The student's logits {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} must have one "
                "shape: both need the same classes."
            )
        with torch.autocast(student.device.type, enabled=False):
            ours = (student.float() / self.temperature).log_softmax(1)
            theirs = (teacher.float() / self.temperature).log_softmax(1)
            first, second = (ours, theirs) if self.direction == "student_teacher" else (theirs, ours)
            return (first.exp() * (first - second)).sum(1).mean() * self.temperature**2
