"""Eq. 5 and Eq. 6 of MISSU: self-distillation, L_sd, of a network's skips from its own refined maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention_similarity import AttentionSimilarity

DETACHED = (None, "skips", "refined")


class SelfDistillation(nn.Module):
    """Eq. 5: the distances of the skips A^s and the refined maps B^s, summed over the stages; Eq. 6 adds 0.3 of it.

    For each stage, q = vec(sum over channels of |A^s|) over its Euclidean norm, likewise of B^s, and the term is the
    Euclidean distance of the two, averaged over the batch: the ``attention`` form of Teach-Former's Eq. 1.

    The fusion blocks that make B learn from this term alone, so by default neither side is detached.

    Args:
        detach: ``skips``: only B follows A; ``refined``: only A follows B, which then must learn from elsewhere.
    """

    def __init__(self, *, detach: str | None = None) -> None:
        super().__init__()
        if detach not in DETACHED:
            raise ValueError(f"detach must be 'skips', 'refined' or None, not '{detach}'.")
        self.detach = detach
        self.similarity = AttentionSimilarity(mode="attention")

    def forward(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """L_sd of pairs (A^s, B^s), each ``(B, C_s, *S_s)``, in float32 whatever the precision around it."""
        if not pairs:
            raise ValueError("Self-distillation needs the network's pairs of maps: build it with its fusion blocks.")
        distances = []
        for skip, refined in pairs:
            a = skip.detach() if self.detach == "skips" else skip
            b = refined.detach() if self.detach == "refined" else refined
            distances.append(self.similarity(a, b))
        return torch.stack(distances).sum()
