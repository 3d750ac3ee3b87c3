"""Who teaches: a frozen network, how much it counts, and the maps it answers with."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..networks import SegmentationNetwork


class TeacherMaps(NamedTuple):
    """What a teacher says of a batch; from a cache, P and Q are what ``AttentionSimilarity.target`` keeps of them.

    Attributes:
        logits: ``(B, classes, *S)``.
        coarse: P ``(B, K, *S/16)``.
        fine: Q ``(B, C, *S)``.
    """

    logits: Tensor
    coarse: Tensor
    fine: Tensor


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained network that teaches.

    Attributes:
        name: for messages and tables.
        network: with the student's channels, classes and dimensions.
        weight: how much it counts in Eq. 1 and Eq. 2.
        temperature: divides its logits; 1, or what calibrates it.
    """

    name: str
    network: SegmentationNetwork
    weight: float = 1.0
    temperature: float = 1.0

    @torch.no_grad()
    def maps(self, image: Tensor) -> TeacherMaps:
        """Its answer to images ``(B, M, *S)``, without gradient, in the precision around it (autocast)."""
        logits, coarse, fine = self.network.forward_with_attention(image)
        return TeacherMaps(logits / self.temperature, coarse, fine)
