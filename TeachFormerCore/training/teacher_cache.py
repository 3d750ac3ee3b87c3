"""Cached teachers: a few views per case, and what each teacher says of them, computed once for all epochs and runs.

A view is cached with its image and label, so that a step reads and moves but computes nothing of them; beside it, per
teacher, the logits and what Eq. 1 keeps of P and Q (``AttentionSimilarity.target``). All are in half precision, with a
relative error of 5e-4 at most, and of 3e-8 of a map's largest value where it is small. Teacher and student see the same
image, half precision included.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.prepared import PreparedData
from ..distillation.attention_similarity import AttentionSimilarity
from ..distillation.projection import map_channels
from ..distillation.teacher import Teacher
from ..errors import InputError, TeachFormerError
from ..files import sha256_of
from ..networks import SegmentationNetwork
from ..progress import Progress
from .config import DistillationConfig
from .entries import Entries
from .views import Views

CACHE_VERSION = 1  # raised whenever views or maps of the same key would differ
GIGABYTE = 10**9
FREE_BYTES = 10**8  # left on the disk for what else a run writes


class TeacherCache:
    """The cached views of a run's training cases, and its teachers' maps of them.

    Entries are shared by all runs for which they are the same: the folders' keys name the data, the augmentation, the
    patch and the seed for the views; the views, the teacher's weights, arguments and temperature, the precision and
    what Eq. 1 keeps for its maps.

    Args:
        root: the folder that holds the caches of all runs; it may be removed whenever none is using it.
        views: draws and samples; its epochs 0, 1, ... are the views 0, 1, ...
        cases: the run's training cases.
        teachers: on the device that computes, in the order of the task.
        identities: per teacher what its answers depend on, the sha256 of its weights and its arguments.
        student: its channels are those that the paper's form of Eq. 1 resamples to.
        settings: form of Eq. 1, views per case and limit.
        bf16: the teachers compute in bfloat16.

    Attributes:
        count: views per case.
        folders: of the views, then of each teacher's maps; an entry has the same name in all of them.
        entry_bytes: of a view with all its maps.

    Raises:
        InputError: it would be larger than the limit, or than what the disk has left.
        TeachFormerError: a teacher's logits are too large for half precision.
    """

    def __init__(
        self,
        root: Path,
        *,
        views: Views,
        cases: Sequence[str],
        teachers: Sequence[Teacher],
        identities: Sequence[Mapping[str, Any]],
        student: SegmentationNetwork,
        settings: DistillationConfig,
        bf16: bool,
    ) -> None:
        self.views = views
        self.count = settings.cached_views
        self.slots = [(case, number) for case in sorted(cases) for number in range(self.count)]
        self.teachers = teachers
        self.similarity = AttentionSimilarity(mode=settings.mode)
        self.student_channels = map_channels(student)
        self.bf16 = bf16

        augmentation = asdict(views.augmentation)
        del augmentation["channel_dropout"]  # drawn anew in every epoch; what is cached has all channels
        view_key = {
            "version": CACHE_VERSION,
            "data": data_key(views.prepared),
            "augmentation": augmentation,
            "patch_size": views.patch_size,
            "seed": views.seed,
        }
        self.folders = [Entries(root, kind="views", key=view_key)]
        blank = torch.zeros(len(views.prepared.plan.channels), *views.patch_size)
        self.entry_bytes = 2 * blank.numel() + blank[0].numel()
        for teacher, identity in zip(teachers, identities, strict=True):
            maps = self._maps(teacher, blank)
            self.entry_bytes += sum(value.numel() * value.element_size() for value in maps.values())
            # The paper's form alone depends on the student, by the channels that it keeps.
            channels = {name: value.shape[0] for name, value in maps.items()}
            common = {"views": view_key, "bf16": bf16, "form": self.similarity.form, "channels": channels}
            key = common | {"teacher": identity, "temperature": teacher.temperature}
            self.folders.append(Entries(root, kind="maps", key=key))
        self._check_room(root, settings.cache_gigabytes)

    @property
    def bytes(self) -> int:
        """What its entries take when all are there."""
        return len(self.slots) * self.entry_bytes

    def record(self) -> dict[str, Any]:
        """What a manifest says of it."""
        folders = [entries.folder.name for entries in self.folders]
        return {"views_per_case": self.count, "bytes": self.bytes, "folders": folders}

    def fill(self) -> None:
        """Computes the entries that are missing or damaged; killed at any moment, it goes on where it was.

        Jobs that fill the same cache share the work: each has its own order, and looks before it computes.
        """
        for entries in self.folders:
            entries.sweep()
        order = self.slots.copy()
        random.Random().shuffle(order)  # of the system's entropy: jobs of one seed differ too
        with Progress(len(order), "caching the teachers' maps") as progress:
            for case, number in order:
                self._fill_slot(case, number)
                progress.advance()

    def _fill_slot(self, case: str, number: int) -> None:
        name = entry_name(case, number)
        views, *maps = self.folders
        if not views.is_sound(name):
            view = self.views[number, case]
            views.write(name, {"image": view.image.half(), "label": view.label})
        missing = [pair for pair in zip(self.teachers, maps, strict=True) if not pair[1].is_sound(name)]
        if not missing:
            return
        image = views.read(name)["image"].float()
        for teacher, entries in missing:
            entries.write(name, self._maps(teacher, image))

    def _maps(self, teacher: Teacher, image: Tensor) -> dict[str, Tensor]:
        """What is cached of a teacher's answer to an image ``(C, *patch)``, in half precision, without a batch axis."""
        device = next(teacher.network.parameters()).device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            answer = teacher.maps(image[None].to(device))
        logits = answer.logits[0].half()
        if not torch.isfinite(logits).all():
            raise TeachFormerError(
                f"The logits of the teacher {teacher.name} do not fit half precision: set "
                "distillation.teacher_outputs to online, or train that teacher again."
            )
        coarse, fine = (
            _largest_to_one(self.similarity.target(each, channels)[0]).half()
            for each, channels in zip((answer.coarse, answer.fine), self.student_channels, strict=True)
        )
        return {"logits": logits, "coarse": coarse, "fine": fine}

    def _check_room(self, root: Path, gigabytes: float) -> None:
        views = f"{len(self.slots) // self.count} cases x {self.count} views x {self.entry_bytes / 1e6:.2f} MB"
        needed = f"The cache of the teachers' maps needs {self.bytes / GIGABYTE:.2f} GB ({views})"
        advice = "lower distillation.cached_views, or set distillation.teacher_outputs to online"
        if self.bytes > gigabytes * GIGABYTE:
            raise InputError(
                f"{needed}, more than distillation.cache_gigabytes, {gigabytes:g}: raise that limit, {advice}."
            )
        there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        names = [entry_name(*slot) for slot in self.slots]
        missing = self.bytes - sum(entries.size(names) for entries in self.folders)
        free = shutil.disk_usage(there).free
        if missing + FREE_BYTES > free:
            raise InputError(
                f"{needed}, and the disk of {root} has {free / GIGABYTE:.2f} GB left: free some space, set "
                f"TEACHFORMER_RUNS to a folder on another disk, {advice}."
            )


def entry_name(case: str, number: int) -> str:
    """The entry of a case's view, in every folder of a cache."""
    return f"{case}_{number}"


def data_key(prepared: PreparedData) -> str:
    """The preparation's key with the content of its cases, which may have been replaced since."""
    files = {case: sha256_of(prepared.folder / f"{case}.safetensors") for case in prepared.cases}
    return f"{prepared.plan.key()} {hashlib.sha256(json.dumps(files).encode()).hexdigest()}"


def _largest_to_one(x: Tensor) -> Tensor:
    """So that a small map keeps its precision and a large one fits; no form of Eq. 1 sees a map's scale."""
    return x / x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
