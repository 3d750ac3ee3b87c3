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

from ..errors import InputError
from .callbacks import Choice
from .divergence import check_weights
from .module import TrainingModule

# Epochs of a few seconds and networks of a gigabyte: writing takes at most this part of the time.
SHARE_OF_TIME = 0.05


class Checkpoint(Callback):
    """Writes the checkpoint after an epoch, each time where that is quick, and puts a resumed fit where it left off.

    It must be the last callback, so that what the others did in the epoch is done when the checkpoint says so.

    Args:
        file: where it lies; it is never seen half-written.
        choice: whose state is part of it.
        origin: what else makes the run than its configuration, by part: hashes of the data and the teachers.

    Raises:
        InputError: it cannot be read, or is of another origin.
    """

    def __init__(self, file: Path, choice: Choice, origin: dict[str, Any]) -> None:
        self.file = file
        self.choice = choice
        self.origin = origin
        self.state: dict[str, Any] | None = None
        self._next = 0.0  # on the monotonic clock; only how much is repeated after a kill depends on it
        if file.exists():
            self.state = read_checkpoint(file)
            changed = [part for part in origin if self.state["origin"].get(part) != origin[part]]
            if changed:
                raise InputError(
                    f"The run {file.parents[1]} was begun with other {' and '.join(changed)} than are there now, and "
                    "cannot go on with these: put the former ones back, or remove its folder to train it again."
                )

    @property
    def epoch(self) -> int:
        """The epoch to begin with."""
        return self.state["epoch"] if self.state else 0

    @property
    def step(self) -> int:
        """The optimiser steps done before it."""
        return self.state["step"] if self.state else 0

    def restore(self, module: TrainingModule) -> None:
        """Puts the task, the choice and the watch where they were; also where no step is left to do after it."""
        if self.state is None:
            return
        module.task.load_state_dict(self.state["task"])
        self.choice.load_state_dict(self.state["choice"])
        module.watch.load_state_dict(self.state["watch"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.state is None:
            return
        trainer.optimizers[0].load_state_dict(self.state["optimizer"])
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.state["schedule"])
        self.state = None  # it holds as much memory as the network and the optimiser

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero or time.monotonic() < self._next or pl_module.watch.alarmed:
            return
        started = time.monotonic()
        check_weights(pl_module.task, step=pl_module.step)
        state = {
            "origin": self.origin,
            "epoch": pl_module.epoch + 1,
            "step": pl_module.step,
            "task": pl_module.task.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "choice": self.choice.state_dict(),
            "watch": pl_module.watch.state_dict(),
        }
        self.file.parent.mkdir(exist_ok=True)
        temporary = self.file.with_name(f".{self.file.name}")  # one name, so that kills do not leave many
        torch.save(state, temporary)
        os.replace(temporary, self.file)
        finished = time.monotonic()
        self._next = finished + (finished - started) * (1 / SHARE_OF_TIME - 1)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The state of a run; nothing in it is unpickled.

    Raises:
        InputError: it is damaged, or no checkpoint of this program.
    """
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
        if not {"origin", "epoch", "step", "task", "optimizer", "schedule", "choice", "watch"} <= set(state):
            raise KeyError("it lacks a part")
    except Exception as error:  # whatever torch raises for bytes that are no checkpoint
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"The checkpoint {file} cannot be read ({reason}): remove it, and the run begins anew."
        ) from error
    return state  # type: ignore[no-any-return]
