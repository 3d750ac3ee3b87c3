"""Scores of whole prepared cases, on the model's grid: what training looks at while and after it runs."""

from dataclasses import dataclass

import torch

from ..data.prepared import PreparedData
from ..distillation.segmentation_loss import SegmentationLoss
from ..evaluation.overlap import dice
from ..inference.windows import predict_windows
from ..networks import SegmentationNetwork


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """Eq. 3 and Dice per label name (None: empty in both) of one case."""

    case: str
    loss: float
    dice: dict[str, float | None]

    @property
    def mean_dice(self) -> float:
        """Over the labels that are there."""
        values = [value for value in self.dice.values() if value is not None]
        return sum(values) / len(values) if values else 1.0


class CaseEvaluator:
    """Predicts whole cases through the windows that inference uses.

    Args:
        prepared: the cases.
        loss: Eq. 3.
        window: the size the network is built for.
        device: computes.
        bf16: autocast to bfloat16.
    """

    def __init__(
        self,
        prepared: PreparedData,
        *,
        loss: SegmentationLoss,
        window: tuple[int, ...],
        device: torch.device,
        bf16: bool,
    ) -> None:
        self.prepared = prepared
        self.loss = loss
        self.window = window
        self.device = device
        self.bf16 = bf16

    @torch.no_grad()
    def score(self, network: SegmentationNetwork, case: str) -> CaseScore:
        """The score of a case; the network's mode is left as it was."""
        image, label = self.prepared.load(case)
        training = network.training
        network.eval()
        try:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                maps = predict_windows(
                    network.forward_with_attention,
                    torch.from_numpy(image).to(self.device, torch.float32),
                    window=self.window,
                )
        finally:
            network.train(training)
        terms = self.loss(maps.probabilities.clamp_min(1e-7).log()[None], torch.from_numpy(label).to(self.device)[None])
        predicted = maps.probabilities.argmax(0).cpu().numpy()
        names = {name: value for name, value in self.prepared.plan.labels.items() if value > 0}
        return CaseScore(
            case=case,
            loss=float(sum(terms.values())),
            dice={name: dice(predicted == value, label == value) for name, value in names.items()},
        )
