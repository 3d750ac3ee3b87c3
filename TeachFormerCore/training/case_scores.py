"""Scores of whole prepared cases, on the model's grid: what training looks at while and after it runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.prepared import PreparedData
from ..devices import computes_in_bf16
from ..distillation.segmentation_loss import SegmentationLoss
from ..evaluation.overlap import dice
from ..evaluation.report.cases import foreground_logits
from ..inference.windows import predict_windows
from ..networks import SegmentationNetwork
from .config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """What a network makes of one case.

    Attributes:
        case: its name.
        loss: Eq. 3.
        dice: per label name; None where it is empty in both.
        label: the predicted label, ``(*S)`` uint8.
        logits: of the classes above 0, ``(classes - 1, *S)`` float16, see `foreground_logits`.
    """

    case: str
    loss: float
    dice: dict[str, float | None]
    label: np.ndarray
    logits: np.ndarray

    @property
    def mean_dice(self) -> float | None:
        """Over the labels that are in the reference or the prediction; None where none is in either."""
        return _mean(self.dice.values())


def mean_dice(scores: Iterable[CaseScore]) -> float | None:
    """The mean over cases of the mean over labels.

    A case that is empty in both masks says nothing and is left out, else predicting nothing would score well wherever
    empty cases are common; a false alarm in an empty case counts 0. None where no case says anything.
    """
    return _mean(score.mean_dice for score in scores)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def case_evaluator(config: TrainConfig, prepared: PreparedData, device: torch.device) -> "CaseEvaluator":
    """The evaluator of a training: its loss, windows, device and precision."""
    return CaseEvaluator(
        prepared,
        loss=SegmentationLoss(focal_gamma=config.loss.focal_gamma, whole_batch_dice=config.loss.whole_batch_dice),
        window=config.window,
        device=device,
        bf16=computes_in_bf16(config.precision, device),
    )


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
    def probabilities(self, network: SegmentationNetwork, case: str, *, kept: Sequence[bool] | None = None) -> Tensor:
        """Softmax ``(classes, *S)`` of a whole case, on the device; the network's mode is left as it was.

        Args:
            network: on the device.
            case: its name.
            kept: per channel whether it is there, 0 otherwise; all unless given.
        """
        image = torch.from_numpy(self.prepared.load(case)[0]).to(self.device, torch.float32)
        if kept is not None:
            image = image * torch.tensor(kept, device=self.device).reshape(-1, *[1] * (image.dim() - 1))
        training = network.training
        network.eval()
        volume = image.dim() > 1 + len(self.window)  # for a 2D network slice by slice
        try:
            parts = [
                predict_windows(lambda windows: self._forward(network, windows), part, window=self.window).probabilities
                for part in (image.unbind(1) if volume else [image])
            ]
        finally:
            network.train(training)
        return torch.stack(parts, 1) if volume else parts[0]

    def score(self, network: SegmentationNetwork, case: str, *, kept: Sequence[bool] | None = None) -> CaseScore:
        """The score of a case, see `probabilities`."""
        return self.score_of(case, self.probabilities(network, case, kept=kept))

    def score_of(self, case: str, probabilities: Tensor) -> CaseScore:
        """The score of a case's probabilities ``(classes, *S)``."""
        label = self.prepared.load(case)[1]
        terms = self.loss(probabilities.clamp_min(1e-7).log()[None], torch.from_numpy(label).to(self.device)[None])
        predicted = probabilities.argmax(0).cpu().numpy()
        names = {name: value for name, value in self.prepared.plan.labels.items() if value > 0}
        return CaseScore(
            case=case,
            loss=float(sum(terms.values())),
            dice={name: dice(predicted == value, label == value) for name, value in names.items()},
            label=predicted.astype(np.uint8),
            logits=foreground_logits(probabilities.cpu().numpy()).astype(np.float16),
        )

    def _forward(self, network: SegmentationNetwork, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Autocast for the network alone: the windows are blended in float32.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return network.forward_with_attention(windows)
