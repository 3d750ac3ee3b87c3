"""From a configuration to what is trained: a network, its loss terms and, where there are teachers, Eq. 4."""

from collections.abc import Sequence

from ..distillation.attention_similarity import AttentionSimilarity
from ..distillation.distillation_task import TEACHING_TERMS, DistillationTask
from ..distillation.pixelwise_divergence import PixelwiseDivergence
from ..distillation.segmentation_loss import SegmentationLoss
from ..distillation.self_distillation import SelfDistillation
from ..distillation.task import SegmentationTask
from ..distillation.teacher import Teacher
from ..errors import InputError
from ..networks import SegmentationNetwork
from .config import TrainConfig


def new_task(config: TrainConfig, *, network: SegmentationNetwork, teachers: Sequence[Teacher]) -> SegmentationTask:
    """The task of the configuration: Eq. 3 alone, or Eq. 4 with teachers; MISSU's Eq. 6 where the network has it.

    Raises:
        InputError: teachers that do not fit the network, or settings that cannot be used.
    """
    own, teaching = config.loss, config.distillation
    weights = {"dice": own.dice, "focal": own.focal, "self_distillation": own.self_distillation}
    try:
        loss = SegmentationLoss(
            focal_gamma=own.focal_gamma,
            whole_batch_dice=own.whole_batch_dice,
            label_smoothing=own.label_smoothing,
        )
        self_distillation = SelfDistillation(detach=own.self_distillation_detach)
        if not teachers:
            return SegmentationTask(student=network, loss=loss, self_distillation=self_distillation, weights=weights)
        return DistillationTask(
            student=network,
            teachers=teachers,
            loss=loss,
            similarity=AttentionSimilarity(mode=teaching.mode),
            divergence=PixelwiseDivergence(
                form=teaching.divergence_form,
                direction=teaching.direction,
                temperature=teaching.temperature,
                foreground_balanced=teaching.foreground_balanced,
            ),
            self_distillation=self_distillation,
            weights=weights | {name: getattr(teaching, name) for name in TEACHING_TERMS},
            balanced=teaching.balancing == "gradient",
            drop_teacher=teaching.drop_teacher,
            shuffle_teachers=teaching.shuffle_teachers,
        )
    except ValueError as error:
        raise InputError(f"The configuration cannot be used: {error}") from error
