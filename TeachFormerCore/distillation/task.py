"""What is trained: a task owns the network that learns and turns a batch into named, weighted loss terms."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import SegmentationNetwork
from .segmentation_loss import SegmentationLoss
from .self_distillation import SelfDistillation
from .teacher import TeacherMaps

TASK_TERMS = ("dice", "focal")
SELF_DISTILLATION = "self_distillation"


class SegmentationTask(nn.Module):
    """A network alone with its labels (Eq. 3), and with itself where it has pairs of maps for that (MISSU's Eq. 6).

    Args:
        student: the network that learns.
        loss: Eq. 3.
        self_distillation: MISSU's Eq. 5, for a student that ``self_distils``.
        weights: factor of each term by name, 1 where absent; a term of weight 0 is not computed.

    Attributes:
        term_names: the terms it computes, in order.

    Raises:
        ValueError: a weight that is negative or of no term, or no term left.
    """

    possible_terms: tuple[str, ...] = (*TASK_TERMS, SELF_DISTILLATION)

    def __init__(
        self,
        *,
        student: SegmentationNetwork,
        loss: SegmentationLoss,
        self_distillation: SelfDistillation | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.loss = loss
        self.self_distillation = self_distillation or SelfDistillation()
        self.weights = dict(weights or {})
        unknown = sorted(set(self.weights) - set(self.possible_terms))
        if unknown:
            raise ValueError(f"There is no term {', '.join(unknown)}: the terms are {', '.join(self.possible_terms)}.")
        negative = sorted(name for name, weight in self.weights.items() if not weight >= 0)
        if negative:
            raise ValueError(f"The weight of {', '.join(negative)} must not be negative: 0 leaves a term out.")
        self.term_names = tuple(
            name
            for name in self.possible_terms
            if self.weights.get(name, 1.0) > 0 and (name != SELF_DISTILLATION or student.self_distils)
        )
        if not self.term_names:
            raise ValueError("All terms have the weight 0: there is nothing to learn from.")

    def forward(
        self,
        image: Tensor,
        label: Tensor,
        targets: Sequence[TeacherMaps] | None = None,
        kept: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted terms by name for images ``(B, M, *S)`` and labels ``(B, *S)``; their sum is the loss.

        Args:
            image: the views.
            label: their labels.
            targets: the teachers' maps where they came with the batch, one for each; none of them asks the teachers.
            kept: ``(B, M)``, the channels that the student sees, all unless given; the teachers see the image whole,
                for their knowledge of the full set of channels is the point.
        """
        terms = self.terms(self.student_maps(image, kept), image, label, targets)
        return {name: self.weights.get(name, 1.0) * terms[name] for name in self.term_names if name in terms}

    def student_maps(self, image: Tensor, kept: Tensor | None = None) -> dict[str, Any]:
        """The student's ``training_forward`` of what it sees; a channel that is not kept is 0, the background."""
        seen = image if kept is None else image * kept.reshape(*kept.shape, *[1] * (image.dim() - 2))
        return self.student.training_forward(seen)

    def terms(
        self, maps: dict[str, Any], image: Tensor, label: Tensor, targets: Sequence[TeacherMaps] | None
    ) -> dict[str, Tensor]:
        """The terms before their weights, from the student's ``training_forward``."""
        return self.own_terms(maps, label)

    def own_terms(self, maps: dict[str, Any], label: Tensor) -> dict[str, Tensor]:
        """The terms that need no teacher, before their weights."""
        terms = self.loss(maps["logits"], label)
        for logits, weight in maps.get("auxiliary", []):
            size = logits.shape[2:]
            smaller = F.interpolate(label.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1)
            for name, term in self.loss(logits, smaller).items():
                terms[name] = terms[name] + weight * term
        if SELF_DISTILLATION in self.term_names and "self_distillation" in maps:  # there is none in eval mode
            terms[SELF_DISTILLATION] = self.self_distillation(maps["self_distillation"])
        return terms
