"""What is trained: a task owns the network that learns and turns a batch into named, weighted loss terms."""

from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import SegmentationNetwork
from .segmentation_loss import SegmentationLoss


class SegmentationTask(nn.Module):
    """A network alone with its labels (Eq. 3).

    Args:
        student: the network that learns.
        loss: Eq. 3.
        weights: factor of each term by name, 1 where absent.
    """

    def __init__(
        self, *, student: SegmentationNetwork, loss: SegmentationLoss, weights: dict[str, float] | None = None
    ) -> None:
        super().__init__()
        self.student = student
        self.loss = loss
        self.weights = weights or {}

    def forward(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Weighted terms by name for images ``(B, M, *S)`` and labels ``(B, *S)``; their sum is the loss."""
        maps = self.student.training_forward(image)
        terms = self.loss(maps["logits"], label)
        for logits, weight in maps.get("auxiliary", []):
            size = logits.shape[2:]
            smaller = F.interpolate(label.unsqueeze(1).float(), size=size, mode="nearest").squeeze(1)
            for name, term in self.loss(logits, smaller).items():
                terms[name] = terms[name] + weight * term
        return {name: self.weights.get(name, 1.0) * term for name, term in terms.items()}
