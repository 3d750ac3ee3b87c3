"""What happens around the epochs: the choosing look at whole cases, the figures' file, the line on the screen."""

import csv
import io
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from ..errors import InputError
from ..files import write_whole
from ..progress import Progress
from .case_scores import CaseEvaluator, mean_dice
from .divergence import stopped


class Choice(Callback):
    """Looks at the choosing cases every few epochs; with patience, keeps the best weights and ends a stale training.

    The figure is L_SEG (Eq. 3) over whole cases, the paper's "validation loss". ``latest`` holds the figures of the
    epoch that just ended, if it was one of those: the loss and, unless all masks were empty, the mean Dice. ``stopped``
    says that patience has ended the training.
    """

    def __init__(self, evaluator: CaseEvaluator, cases: Sequence[str], *, every: int, patience: int | None) -> None:
        self.evaluator = evaluator
        self.cases = cases
        self.every = every
        self.patience = patience
        self.latest: dict[str, float] = {}
        self.best_loss = float("inf")
        self.best_epoch = -1
        self.best_weights: dict[str, Tensor] = {}
        self.stopped = False

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        epoch = pl_module.epoch
        self.latest = {}
        last = pl_module.step >= pl_module.steps
        if not self.cases or ((epoch + 1) % self.every and not last):
            return
        network = pl_module.task.student
        scores = [self.evaluator.score(network, case) for case in self.cases]
        loss = sum(score.loss for score in scores) / len(scores)
        if not isfinite(loss):
            raise stopped(f"The loss of the cases that choose became {loss:.6g} at step {pl_module.step}")
        self.latest = {"choice_loss": loss}
        if (dice := mean_dice(scores)) is not None:
            self.latest["choice_dice"] = dice
        if self.patience is None:
            return
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, epoch
            self.best_weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        elif epoch - self.best_epoch >= self.patience:
            trainer.should_stop = self.stopped = True

    def state_dict(self) -> dict[str, Any]:
        best = {"loss": self.best_loss, "epoch": self.best_epoch, "weights": self.best_weights}
        return best | {"stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_loss, self.best_epoch = state_dict["loss"], state_dict["epoch"]
        self.best_weights, self.stopped = state_dict["weights"], state_dict["stopped"]


class MetricsFile(Callback):
    """``metrics.csv``: a row per epoch; a resumed run continues it without doubled rows."""

    def __init__(self, file: Path, choice: Choice, terms: Sequence[str]) -> None:
        self.file = file
        self.choice = choice
        self.columns = ["epoch", "step", "learning_rate", *(f"train_{t}" for t in terms), "choice_loss", "choice_dice"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        kept: list[Mapping[str, Any]] = []
        if self.file.exists():
            try:
                with self.file.open(newline="", encoding="utf-8") as stream:
                    kept = [row for row in csv.DictReader(stream) if int(row["epoch"]) < pl_module.epoch]
            except (ValueError, KeyError, TypeError, csv.Error) as error:
                raise InputError(
                    f"{self.file} is damaged ({error}): remove it, and the run goes on without its figures so far."
                ) from error
        write_whole(self.file, self._as_csv(kept, header=True))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        row = {"epoch": pl_module.epoch, "step": pl_module.step}
        figures = trainer.callback_metrics | self.choice.latest
        figures = figures | {"learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}
        row |= {name: f"{float(value):.6g}" for name, value in figures.items()}
        with self.file.open("a", newline="", encoding="utf-8") as stream:
            stream.write(self._as_csv([row], header=False))

    def _as_csv(self, rows: Sequence[Mapping[str, Any]], *, header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


class StepProgress(Callback):
    """One line with the time left, over the steps of the whole training."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.progress: Progress | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.progress = Progress(pl_module.steps - pl_module.step, self.label)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.progress:
            self.progress.advance()

    def on_train_end(self, *_: Any) -> None:
        if self.progress:
            self.progress.close()
