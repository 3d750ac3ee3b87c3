"""The adapter between a task and PyTorch Lightning: optimiser, schedule, finite losses, nothing else."""

import pytorch_lightning as lightning
import torch
from torch import Tensor

from ..distillation.task import SegmentationTask
from ..errors import TeachFormerError
from .config import OptimiserConfig


class TrainingModule(lightning.LightningModule):
    """Optimises a task with Adam and a polynomially decaying learning rate.

    Every step starts from a random state drawn from (seed, step), so that dropout replays exactly on resuming.

    Args:
        task: image, label -> weighted loss terms by name.
        optimiser: Adam and the decay.
        steps: of the whole training.
        seed: of the random states.
        first_epoch: a resumed run begins with this epoch.
        first_step: and has done this many steps.
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
    ) -> None:
        super().__init__()
        self.task = task
        self.optimiser = optimiser
        self.steps = steps
        self.seed = seed
        self.first_epoch = first_epoch
        self.first_step = first_step

    @property
    def epoch(self) -> int:
        """The epoch at hand, counted over all resumptions."""
        return self.first_epoch + self.current_epoch

    @property
    def step(self) -> int:
        """Optimiser steps done, counted over all resumptions."""
        return self.first_step + self.global_step

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        torch.manual_seed(hash((self.seed, self.step)) % 2**63)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        image, label = batch
        terms = self.task(image, label)
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise TeachFormerError(
                    f"The loss term '{name}' became {term.item()} at step {self.step}: the training stopped, "
                    "its last checkpoint is kept. Lower optimiser.learning_rate or set precision to fp32, in a new run."
                )
        self.log_dict({f"train_{name}": term.detach() for name, term in terms.items()}, on_step=False, on_epoch=True)
        return torch.stack(list(terms.values())).sum()

    def configure_optimizers(self) -> dict:  # type: ignore[type-arg, override]
        settings = self.optimiser
        adam = torch.optim.Adam(self.task.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.PolynomialLR(adam, total_iters=self.steps, power=settings.power)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
