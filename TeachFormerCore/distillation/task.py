"""What is trained: a task owns the network that learns and turns a batch into named, weighted loss terms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import SegmentationNetwork
from .attention_similarity import AttentionSimilarity
from .pixelwise_divergence import PixelwiseDivergence
from .segmentation_loss import SegmentationLoss


class SegmentationTask(nn.Module):
    """A network alone with its labels (Eq. 3).

    Args:
        student: the network that learns.
        loss: Eq. 3.
        weights: factor of each term by name, 1 where absent.
    """

    term_names: tuple[str, ...] = ("dice", "focal")

    def __init__(
        self, *, student: SegmentationNetwork, loss: SegmentationLoss, weights: dict[str, float] | None = None
    ) -> None:
        super().__init__()
        self.student = student
        self.loss = loss
        self.weights = weights or {}
        unknown = sorted(set(self.weights) - set(self.term_names))
        if unknown:
            raise ValueError(f"There is no term {', '.join(unknown)}: the terms are {', '.join(self.term_names)}.")

    def forward(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Weighted terms by name for images ``(B, M, *S)`` and labels ``(B, *S)``; their sum is the loss."""
        terms = self.terms(self.student.training_forward(image), image, label)
        return {name: self.weights.get(name, 1.0) * term for name, term in terms.items()}

    def terms(self, maps: dict[str, Any], image: Tensor, label: Tensor) -> dict[str, Tensor]:
        """The terms before their weights."""
        terms = self.loss(maps["logits"], label)
        for logits, weight in maps.get("auxiliary", []):
            size = logits.shape[2:]
            smaller = F.interpolate(label.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1)
            for name, term in self.loss(logits, smaller).items():
                terms[name] = terms[name] + weight * term
        return terms


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained network that teaches, and how much it counts."""

    name: str
    network: SegmentationNetwork
    weight: float = 1.0


class DistillationTask(SegmentationTask):
    """A student with its labels and its teachers: Eq. 4, the sum of Eq. 3, Eq. 1 (P and Q) and Eq. 2 over the teachers.

    The teachers are frozen and in eval mode, see the student's view of the case, and are no part of the checkpoint.

    Args:
        student: the network that learns.
        teachers: at least one, with the student's channels, classes and dimensions.
        loss: Eq. 3.
        similarity: Eq. 1, for the terms ``similarity_coarse`` and ``similarity_fine``.
        divergence: Eq. 2, for the term ``divergence``.
        weights: factor of each term by name, 1 where absent, as the paper has it.

    Raises:
        ValueError: no teacher, one that does not fit the student, or a weight that is not positive.
    """

    term_names = (*SegmentationTask.term_names, "similarity_coarse", "similarity_fine", "divergence")

    def __init__(
        self,
        *,
        student: SegmentationNetwork,
        teachers: Sequence[Teacher],
        loss: SegmentationLoss,
        similarity: AttentionSimilarity,
        divergence: PixelwiseDivergence,
        weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(student=student, loss=loss, weights=weights)
        if not teachers:
            raise ValueError("A distillation needs at least one teacher.")
        for teacher in teachers:
            for what in ("in_channels", "out_channels", "spatial_dims"):
                wanted, found = getattr(student, what), getattr(teacher.network, what)
                if wanted != found:
                    raise ValueError(f"The teacher {teacher.name} has {what} {found}, the student has {wanted}.")
            if not teacher.weight > 0:
                raise ValueError(f"The weight of teacher {teacher.name} must be positive: leave it out instead.")
            teacher.network.eval().requires_grad_(requires_grad=False)
        # A tuple hides the networks from nn.Module: not in the checkpoint, not trained, never switched to train mode.
        self._teachers = tuple(teachers)
        self.similarity = similarity
        self.divergence = divergence

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DistillationTask":
        for teacher in self._teachers:
            teacher.network._apply(fn, recurse)  # the teachers move to the student's device
        return super()._apply(fn, recurse)

    def terms(self, maps: dict[str, Any], image: Tensor, label: Tensor) -> dict[str, Tensor]:
        terms = super().terms(maps, image, label)
        for teacher in self._teachers:
            with torch.no_grad():
                logits, coarse, fine = teacher.network.forward_with_attention(image)
            for name, term in (
                ("similarity_coarse", self.similarity(maps["coarse"], coarse)),
                ("similarity_fine", self.similarity(maps["fine"], fine)),
                ("divergence", self.divergence(maps["logits"], logits)),
            ):
                terms[name] = terms.get(name, 0.0) + teacher.weight * term
        return terms
