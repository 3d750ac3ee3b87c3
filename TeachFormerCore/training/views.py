"""Prepared cases as Lightning reads them: epochs of augmented views, each a pure function of (seed, epoch, case)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.augmentation import AugmentationConfig, PatchDraw, draw_patch, sample_patch
from ..data.prepared import PreparedData
from ..distillation.teacher import TeacherMaps
from .distributed import World

Index = tuple[int, str]  # epoch, case


class View(NamedTuple):
    """What a step learns from, in the order of a task's arguments.

    Attributes:
        image: ``(C, *patch)`` float32, with all channels.
        label: ``(*patch)`` uint8.
        targets: the teachers' maps of the image where they are cached, none where the task asks the teachers.
        kept: ``(C,)`` bool, the channels that the student sees.
    """

    image: Tensor
    label: Tensor
    targets: tuple[TeacherMaps, ...]
    kept: Tensor


class ViewSource(Protocol):
    """A dataset of views by epoch and case."""

    seed: int

    def __getitem__(self, index: Index) -> View: ...


class Views(Dataset[View]):
    """``views[epoch, case]``: a view drawn anew in every epoch."""

    def __init__(
        self, prepared: PreparedData, *, patch_size: Sequence[int], augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.prepared = prepared
        self.patch_size = tuple(patch_size)
        self.augmentation = augmentation
        self.seed = seed
        self.spacing = prepared.plan.spacing[::-1][-len(self.patch_size) :]
        self._loaded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def draw(self, epoch: int, case: str) -> PatchDraw:
        """Everything random about a view."""
        return draw_patch(
            self.augmentation,
            seed=self.seed,
            epoch=epoch,
            case=case,
            channels=len(self.prepared.plan.channels),
            spatial_dims=len(self.patch_size),
        )

    def __getitem__(self, index: Index) -> View:
        epoch, case = index
        if case not in self._loaded:
            self._loaded[case] = self.prepared.load(case)
        draw = self.draw(epoch, case)
        image, label = sample_patch(
            *self._loaded[case],
            draw,
            patch_size=self.patch_size,
            spacing=self.spacing,
            noise=self.augmentation.noise,
        )
        return View(image, label, (), torch.tensor(draw.kept))


class EpochOrder(Sampler[Index]):
    """The cases in an order drawn from (seed, epoch), in whole batches; Lightning calls ``set_epoch``.

    What does not fill a last batch is left out of that epoch, other cases each time.

    Args:
        cases: in any order.
        seed: of the orders.
        batch_size: views per step.
        first_epoch: which epoch Lightning's epoch 0 is.
        world: processes that share each batch; this one gets its part.
    """

    def __init__(
        self, cases: Sequence[str], *, seed: int, batch_size: int, first_epoch: int, world: World | None = None
    ) -> None:
        self.cases = sorted(cases)
        self.seed = seed
        self.world = world or World()
        self.share = batch_size // self.world.size
        self.batches = max(1, len(self.cases) // batch_size)
        self.first_epoch = self.epoch = first_epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = self.first_epoch + epoch

    def __len__(self) -> int:
        return self.batches * self.share

    def __iter__(self) -> Iterator[Index]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.cases))
        batches = np.arange(self.batches * self.share * self.world.size).reshape(self.batches, self.world.size, -1)
        mine = batches[:, self.world.rank].flatten()
        return iter([(self.epoch, self.cases[order[i % len(order)]]) for i in mine])


def view_loader(
    views: ViewSource,
    cases: Sequence[str],
    *,
    batch_size: int,
    first_epoch: int,
    workers: int,
    pin_memory: bool,
    world: World | None = None,
) -> DataLoader[View]:
    """The loader of a training: pinned where a GPU reads it. Its batches are `View`s with a batch axis."""
    order = EpochOrder(cases, seed=views.seed, batch_size=batch_size, first_epoch=first_epoch, world=world)
    return DataLoader(
        views,  # type: ignore[arg-type]
        batch_size=order.share,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )
