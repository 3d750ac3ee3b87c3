"""Data-parallel training: the processes that torchrun started share every batch.

    torchrun --nproc_per_node 4 -m TeachFormerCore train --config FILE

Each process sees its part of a batch of ``batch_size`` views and the gradients are averaged, so that the losses, which
are means over the views, and the weights are those of one process within rounding. Dropout draws differ. What depends
on the batch as a whole is taken over all processes, or refused.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

from ..errors import InputError
from .config import TrainConfig

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
LONGEST_WAIT = timedelta(hours=6)  # for the first process to prepare the data, or to score the val cases


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a training, and which of them this one is; alone unless torchrun started it.

    Attributes:
        rank: of this process, from 0, the one that writes.
        size: their number.
        local_rank: among those of this machine.
        local_size: their number on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def device(self, chosen: torch.device) -> torch.device:
        """The device of this process: one GPU each."""
        if self.size == 1 or chosen.type != "cuda":
            return chosen
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The first process goes through alone, the others after it: they find what it has made."""
        if not self.is_main:
            self.wait()
        try:
            yield
        finally:
            if self.is_main:
                self.wait()

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()


def join_world(config: TrainConfig) -> World:
    """The processes of this training, from torchrun's environment.

    Raises:
        InputError: a configuration that cannot be shared among them.
    """
    size = int(os.environ.get("WORLD_SIZE", 1)) if distributed.is_torchelastic_launched() else 1
    if size == 1:
        return World()
    problems = [
        (config.batch_size % size == 0, f"batch_size {config.batch_size} cannot be divided by {size} processes"),
        (not config.loss.whole_batch_dice, "loss.whole_batch_dice needs the whole batch in one process"),
        (
            not (config.teachers and config.distillation.shuffle_teachers),
            "distillation.shuffle_teachers needs the whole batch in one process",
        ),
    ]
    for holds, sentence in problems:
        if not holds:
            raise InputError(f"This training cannot run data-parallel: {sentence}.")
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    return World(
        rank=int(os.environ["RANK"]),
        size=size,
        local_rank=int(os.environ["LOCAL_RANK"]),
        local_size=int(os.environ["LOCAL_WORLD_SIZE"]),
    )


def check_network(network: nn.Module, device: torch.device, world: World) -> None:
    """Refuses what PyTorch cannot share among processes.

    Raises:
        InputError: batch normalisation on processors, where each process would normalise its own share.
    """
    if world.size > 1 and device.type == "cpu" and any(isinstance(part, BATCH_NORM) for part in network.modules()):
        raise InputError(
            "This training cannot run data-parallel: the network has batch normalisation, which is shared among GPUs "
            "only. Run it in one process."
        )
