"""Eq. 4 of Teach-Former: a student with its labels and its teachers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..networks import SegmentationNetwork
from .attention_similarity import AttentionSimilarity
from .balancing import GradientBalancing
from .pixelwise_divergence import PixelwiseDivergence
from .processes import of_first_process
from .projection import ChannelProjection, map_channels
from .segmentation_loss import SegmentationLoss
from .self_distillation import SelfDistillation
from .task import SELF_DISTILLATION, TASK_TERMS, SegmentationTask
from .teacher import Teacher, TeacherMaps

SIMILARITY_TERMS = ("similarity_coarse", "similarity_fine")
TEACHING_TERMS = (*SIMILARITY_TERMS, "divergence")


class DistillationTask(SegmentationTask):
    """A student with its labels and its teachers: Eq. 4, the sum of Eq. 3, Eq. 1 (P and Q) and Eq. 2 over the teachers.

    The teachers are frozen and in eval mode, see the student's view of the case, and are no part of the checkpoint.
    What learns beside the student (Eq. 1's projections, the balance) is part of it, and of nothing else.

    Args:
        student: the network that learns.
        teachers: at least one, with the student's channels, classes and dimensions.
        loss: Eq. 3.
        similarity: Eq. 1, for the terms ``similarity_coarse`` and ``similarity_fine``.
        divergence: Eq. 2, for the term ``divergence``.
        self_distillation: MISSU's Eq. 5, for a student that ``self_distils``.
        weights: factor of each term by name, 1 where absent, as the paper has it.
        balanced: the teachers' terms are scaled to the length of Eq. 3's gradient, before their weights.
        drop_teacher: the probability that a teacher is left out of a training step; at least one stays, and those that
            stay share the weight of those that do not.
        shuffle_teachers: a negative control: each sample is taught with the maps of another one of its batch.

    Raises:
        ValueError: no teacher, one that does not fit the student, or settings that contradict one another.
    """

    possible_terms = (*TASK_TERMS, *TEACHING_TERMS, SELF_DISTILLATION)

    def __init__(
        self,
        *,
        student: SegmentationNetwork,
        teachers: Sequence[Teacher],
        loss: SegmentationLoss,
        similarity: AttentionSimilarity,
        divergence: PixelwiseDivergence,
        self_distillation: SelfDistillation | None = None,
        weights: Mapping[str, float] | None = None,
        balanced: bool = False,
        drop_teacher: float = 0.0,
        shuffle_teachers: bool = False,
    ) -> None:
        super().__init__(student=student, loss=loss, self_distillation=self_distillation, weights=weights)
        if not teachers:
            raise ValueError("A distillation needs at least one teacher.")
        for teacher in teachers:
            for what in ("in_channels", "out_channels", "spatial_dims"):
                wanted, found = getattr(student, what), getattr(teacher.network, what)
                if wanted != found:
                    raise ValueError(f"The teacher {teacher.name} has {what} {found}, the student has {wanted}.")
            if not teacher.weight > 0:
                raise ValueError(f"The weight of teacher {teacher.name} must be positive: leave it out instead.")
            if not teacher.temperature > 0:
                raise ValueError(f"The temperature of teacher {teacher.name} must be above 0.")
            teacher.network.eval().requires_grad_(requires_grad=False)
        self.teaching_terms = tuple(name for name in TEACHING_TERMS if name in self.term_names)
        if not self.teaching_terms:
            raise ValueError("All terms of Eq. 1 and Eq. 2 have the weight 0: train the student without teachers.")
        if not 0 <= drop_teacher < 1:
            raise ValueError(f"drop_teacher is a probability below 1, not {drop_teacher}.")
        if drop_teacher and len(teachers) == 1:
            raise ValueError("drop_teacher needs two teachers or more: the only one always stays.")
        if balanced and not set(TASK_TERMS) & set(self.term_names):
            raise ValueError("Balancing measures the terms against Eq. 3: give dice or focal a weight.")
        # A tuple hides the networks from nn.Module: not in the checkpoint, not trained, never switched to train mode.
        self._teachers = tuple(teachers)
        self.similarity = similarity
        self.divergence = divergence
        self.drop_teacher = drop_teacher
        self.shuffle_teachers = shuffle_teachers
        self.balancing = GradientBalancing(self.teaching_terms) if balanced else None
        self.projections = nn.ModuleDict()
        if similarity.form == "projected":
            ours = dict(zip(SIMILARITY_TERMS, map_channels(student), strict=True))
            for number, teacher in enumerate(teachers):
                theirs = dict(zip(SIMILARITY_TERMS, map_channels(teacher.network), strict=True))
                for term in SIMILARITY_TERMS:
                    if term in self.teaching_terms:
                        self.projections[f"{term}_{number}"] = ChannelProjection(ours[term], theirs[term])

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """They, in their order."""
        return self._teachers

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DistillationTask":
        for teacher in self._teachers:
            teacher.network._apply(fn, recurse)  # the teachers move to the student's device
        return super()._apply(fn, recurse)

    def terms(
        self, maps: dict[str, Any], image: Tensor, label: Tensor, targets: Sequence[TeacherMaps] | None
    ) -> dict[str, Tensor]:
        terms = self.own_terms(maps, label)
        if targets and len(targets) != len(self._teachers):
            raise ValueError(f"The batch brings the maps of {len(targets)} teachers, there are {len(self._teachers)}.")
        weights = self._teacher_weights()
        taught = []
        for number in weights:
            theirs = targets[number] if targets else self._teachers[number].maps(image)
            taught.append(self.teacher_terms(number, maps, theirs, label))
        teaching = sum_over_teachers(taught, list(weights.values()))
        scales = self.scales(terms, teaching)
        return terms | {name: scales[name] * term for name, term in teaching.items()}

    def scales(self, own: Mapping[str, Tensor], teaching: Mapping[str, Tensor]) -> dict[str, Tensor | float]:
        """What balances the teachers' terms; in training mode the balance takes its step first.

        Args:
            own: the terms of Eq. 3, before their weights.
            teaching: those of Eq. 1 and Eq. 2, summed over the teachers, before their weights.
        """
        if self.balancing is None:
            return dict.fromkeys(self.teaching_terms, 1.0)
        if self.training:
            task_loss = torch.stack([self.weights.get(name, 1.0) * own[name] for name in TASK_TERMS]).sum()
            self.balancing.step(teaching, task_loss, list(self.student.parameters()))
        return dict(self.balancing.scales())

    def teacher_terms(self, number: int, maps: dict[str, Any], theirs: TeacherMaps, label: Tensor) -> dict[str, Tensor]:
        """One teacher's terms, before all weights.

        Raises:
            ValueError: a batch of one, whose maps cannot be shuffled.
        """
        if self.shuffle_teachers:
            if len(label) < 2:
                raise ValueError("shuffle_teachers takes another sample's maps: it needs batches of 2 or more.")
            others = [sample - 1 for sample in range(len(label))]
            theirs = TeacherMaps(*(each[others] for each in theirs))
        terms = {}
        for name in self.teaching_terms:
            if name == "divergence":
                terms[name] = self.divergence(maps["logits"], theirs.logits, label)
            else:
                which = name.removeprefix("similarity_")
                key = f"{name}_{number}"
                ours = self.projections[key](maps[which]) if key in self.projections else maps[which]
                terms[name] = self.similarity(ours, getattr(theirs, which))
        return terms

    def _teacher_weights(self) -> dict[int, float]:
        """The weights of the teachers of this step by their numbers; drawn from torch's generator, seeded per step.

        Of several processes the first one draws for all.
        """
        weights = {number: teacher.weight for number, teacher in enumerate(self._teachers)}
        if not (self.training and self.drop_teacher):
            return weights
        # Drawn on the processor, as ever; GPUs share what lies on them.
        draws = of_first_process(torch.rand(len(weights)).to(next(self.parameters()).device)).tolist()
        luckiest = max(weights, key=draws.__getitem__)
        kept = {n: weight for n, weight in weights.items() if draws[n] >= self.drop_teacher or n == luckiest}
        share = sum(weights.values()) / sum(kept.values())
        return {number: share * weight for number, weight in kept.items()}


def sum_over_teachers(taught: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Terms by name, summed over teachers with these weights."""
    return {
        name: torch.stack([weight * terms[name] for terms, weight in zip(taught, weights, strict=True)]).sum()
        for name in taught[0]
    }
