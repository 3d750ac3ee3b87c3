"""The adapter between a task and PyTorch Lightning: optimiser, schedule, sane losses, nothing else."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor

from ..distillation.task import SegmentationTask
from .config import OptimiserConfig
from .divergence import DivergenceWatch, check_gradient


class TrainingModule(lightning.LightningModule):
    """Optimises a task with a polynomially decaying learning rate.

    Every step starts from a random state drawn from (seed, step), so that dropout replays exactly on resuming.

    Args:
        task: image, label -> weighted loss terms by name.
        optimiser: Adam and the decay.
        steps: of the whole training.
        seed: of the random states.
        first_epoch: a resumed run begins with this epoch.
        first_step: and has done this many steps.
        rank: of this process among those that share a batch; each draws its own dropout.
    """

    def __init__(
        self,
        *,
        task: SegmentationTask,
        optimiser: OptimiserConfig,
        steps: int,
        seed: int,
        first_epoch: int = 0,
        first_step: int = 0,
        rank: int = 0,
    ) -> None:
        super().__init__()
        self.task = task
        self.optimiser = optimiser
        self.steps = steps
        self.seed = seed
        self.first_epoch = first_epoch
        self.first_step = first_step
        self.rank = rank
        self.watch = DivergenceWatch()
        self._batch: Sequence[Any] = ()

    @property
    def epoch(self) -> int:
        """The epoch at hand, counted over all resumptions."""
        return self.first_epoch + self.current_epoch

    @property
    def step(self) -> int:
        """Optimiser steps done, counted over all resumptions."""
        return self.first_step + self.global_step

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        torch.manual_seed((hash((self.seed, self.step)) + self.rank) % 2**63)

    def training_step(self, batch: Sequence[Any], batch_index: int) -> Tensor:
        """The loss of a batch: the arguments of the task in their order."""
        self._batch = batch
        terms = self.task(*batch)
        values = torch.stack([term.detach() for term in terms.values()]).tolist()
        self.watch.look(dict(zip(terms, values, strict=True)), step=self.step)
        self.log_dict(
            {f"train_{name}": term.detach() for name, term in terms.items()},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
        )
        return torch.stack(list(terms.values())).sum()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        check_gradient(self.task.parameters(), lambda: self.task(*self._batch), step=self.step)

    def configure_optimizers(self) -> dict:  # type: ignore[type-arg, override]
        settings = self.optimiser
        common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
        optimiser: torch.optim.Optimizer
        if settings.name == "sgd":
            optimiser = torch.optim.SGD(self.task.parameters(), momentum=settings.momentum, nesterov=True, **common)
        else:
            fused = has_fused_adam(self.device)
            optimiser = torch.optim.Adam(self.task.parameters(), eps=settings.epsilon, fused=fused, **common)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=self.steps, power=settings.power)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def has_fused_adam(device: torch.device) -> bool:
    """Whether Adam's update is one kernel per tensor there, twice as fast: on processors since PyTorch 2.4."""
    try:
        torch.optim.Adam([torch.zeros(1, device=device)], fused=True)
    except RuntimeError:
        return False
    return True
