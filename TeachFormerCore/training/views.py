"""Prepared cases as Lightning reads them: epochs of augmented views, each a pure function of (seed, epoch, case)."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.augmentation import AugmentationConfig, draw_patch, sample_patch
from ..data.prepared import PreparedData

Index = tuple[int, str]  # epoch, case


class Views(Dataset[tuple[Tensor, Tensor]]):
    """Augmented views: ``views[epoch, case]`` is (image ``(C, *patch)`` float32, label ``(*patch)`` uint8)."""

    def __init__(
        self, prepared: PreparedData, *, patch_size: Sequence[int], augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.prepared = prepared
        self.patch_size = tuple(patch_size)
        self.augmentation = augmentation
        self.seed = seed
        self.spacing = prepared.plan.spacing[::-1][-len(self.patch_size) :]
        self._loaded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, index: Index) -> tuple[Tensor, Tensor]:
        epoch, case = index
        if case not in self._loaded:
            self._loaded[case] = self.prepared.load(case)
        image, label = self._loaded[case]
        draw = draw_patch(
            self.augmentation,
            seed=self.seed,
            epoch=epoch,
            case=case,
            channels=image.shape[0],
            spatial_dims=len(self.patch_size),
        )
        return sample_patch(
            image, label, draw, patch_size=self.patch_size, spacing=self.spacing, noise=self.augmentation.noise
        )


class EpochOrder(Sampler[Index]):
    """The cases in an order drawn from (seed, epoch), in whole batches; Lightning calls ``set_epoch``.

    What does not fill a last batch is left out of that epoch, other cases each time.

    Args:
        cases: in any order.
        seed: of the orders.
        batch_size: views per step.
        first_epoch: which epoch Lightning's epoch 0 is.
    """

    def __init__(self, cases: Sequence[str], *, seed: int, batch_size: int, first_epoch: int) -> None:
        self.cases = sorted(cases)
        self.seed = seed
        self.length = max(1, len(self.cases) // batch_size) * batch_size
        self.first_epoch = self.epoch = first_epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = self.first_epoch + epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Index]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.cases))
        return iter([(self.epoch, self.cases[order[i % len(order)]]) for i in range(self.length)])


def view_loader(
    views: Views, cases: Sequence[str], *, batch_size: int, first_epoch: int, workers: int, pin_memory: bool
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The loader of a training: pinned where a GPU reads it."""
    return DataLoader(
        views,
        batch_size=batch_size,
        sampler=EpochOrder(cases, seed=views.seed, batch_size=batch_size, first_epoch=first_epoch),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
    )
