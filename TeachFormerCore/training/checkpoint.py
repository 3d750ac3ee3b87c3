"""Stopping and going on: a checkpoint at the end of an epoch, and a fresh start from it.

A resumed run is a new fit that begins with the next epoch. Since order, views and random states are pure functions of
the seed and of the count of epochs and steps, it goes the way an undisturbed run would have gone, bit for bit on a
processor. (Lightning's own resuming repeated or left out steps of an epoch, depending on the moment of the kill.)
"""

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback

from .callbacks import Choice
from .module import TrainingModule

# Epochs of a few seconds and networks of a gigabyte: writing takes at most this part of the time.
SHARE_OF_TIME = 0.05


class Checkpoint(Callback):
    """Writes the checkpoint after an epoch, each time where that is quick, and puts a resumed fit where it left off.

    It must be the last callback, so that what the others did in the epoch is done when the checkpoint says so.

    Args:
        file: where it lies; it is never seen half-written.
        choice: whose state is part of it.
    """

    def __init__(self, file: Path, choice: Choice) -> None:
        self.file = file
        self.choice = choice
        self.state: dict[str, Any] | None = None
        self._next = 0.0  # on the monotonic clock; only how much is repeated after a kill depends on it
        if file.exists():
            self.state = torch.load(file, weights_only=True, map_location="cpu")

    @property
    def epoch(self) -> int:
        """The epoch to begin with."""
        return self.state["epoch"] if self.state else 0

    @property
    def step(self) -> int:
        """The optimiser steps done before it."""
        return self.state["step"] if self.state else 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.state is None:
            return
        assert isinstance(pl_module, TrainingModule)
        pl_module.task.load_state_dict(self.state["task"])
        trainer.optimizers[0].load_state_dict(self.state["optimizer"])
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.state["schedule"])
        self.choice.load_state_dict(self.state["choice"])
        pl_module.watch.load_state_dict(self.state["watch"])
        self.state = None  # it holds as much memory as the network and the optimiser

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero or time.monotonic() < self._next or pl_module.watch.alarmed:
            return
        started = time.monotonic()
        state = {
            "epoch": pl_module.epoch + 1,
            "step": pl_module.step,
            "task": pl_module.task.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "choice": self.choice.state_dict(),
            "watch": pl_module.watch.state_dict(),
        }
        self.file.parent.mkdir(exist_ok=True)
        temporary = self.file.with_name(f".{self.file.name}")
        torch.save(state, temporary)
        os.replace(temporary, self.file)
        finished = time.monotonic()
        self._next = finished + (finished - started) * (1 / SHARE_OF_TIME - 1)
