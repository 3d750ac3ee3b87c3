"""The configuration of a training: one typed YAML, checked before anything starts."""

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

from ..data.augmentation import AugmentationConfig
from ..errors import InputError


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Eq. 3 of Teach-Former, and what a network brings of its own.

    Attributes:
        dice: weight of the Dice term.
        focal: weight of the focal term.
        focal_gamma: focusing parameter.
        whole_batch_dice: Dice over the batch instead of per sample.
        label_smoothing: part of the focal term's target that is spread evenly over the classes.
        self_distillation: weight of MISSU's Eq. 5, for a network with fusion blocks; nothing to others.
        self_distillation_detach: 'skips' or 'refined': the side of Eq. 5 that does not learn from it.
    """

    dice: float = 1.0
    focal: float = 1.0
    focal_gamma: float = 2.0
    whole_batch_dice: bool = False
    label_smoothing: float = 0.0
    self_distillation: float = 0.3
    self_distillation_detach: Literal["skips", "refined"] | None = None

    def problems(self) -> list[tuple[bool, str]]:
        """What must hold, and the words where it does not."""
        weights = (self.dice, self.focal, self.self_distillation)
        gamma = self.focal_gamma
        return [
            (all(0 <= weight < inf for weight in weights), "the weights in loss must not be negative, and finite"),
            (gamma == 0 or 1 <= gamma < inf, "loss.focal_gamma must be 0 (cross-entropy) or at least 1"),
        ]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A finished run whose network teaches.

    Attributes:
        run: as in its own configuration.
        weight: how much it counts in Eq. 1 and Eq. 2.
        taps: arguments of its network that choose the maps it teaches with, e.g. coarse_tap: mpe.
    """

    run: str
    weight: float = 1.0
    taps: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Eq. 1 and Eq. 2 of Teach-Former; the defaults are the paper's, unweighted (Eq. 4).

    A term of weight 0 is not computed. Two plain baselines are settings of these terms: Hinton's distillation is
    direction 'teacher_student' at a temperature, with both similarities at weight 0; attention transfer is mode
    'attention' at the weight beta / 2, with divergence at 0.

    Attributes:
        mode: form of Eq. 1: 'paper', 'attention' (also named 'balanced') or 'projected'.
        similarity_coarse: weight of Eq. 1 on P.
        similarity_fine: weight of Eq. 1 on Q.
        divergence: weight of Eq. 2.
        divergence_form: of Eq. 2, 'kl' as printed or 'js' (Jensen-Shannon).
        direction: of Eq. 2's 'kl', 'student_teacher' as printed or 'teacher_student'.
        temperature: of Eq. 2.
        foreground_balanced: Eq. 2 counts the voxels of the label's foreground and the others half each.
        balancing: 'gradient' scales each term until its gradient is as long as Eq. 3's, times its weight.
        teacher_outputs: 'online' asks the teachers at every step; 'cached' stores their maps of a few views per case
            once, and shows those views in all their exact symmetries.
        cached_views: views per case.
        cache_gigabytes: the cache of this run may not be larger.
        quarter_turns: a cached view is also turned by 90 degrees, in planes of equal patch sizes and spacings.
        teacher_weighting: 'fixed' takes the weights as given, 'uniform' 1 / T for T teachers, 'tune_dice' in proportion
            to the teachers' Dice on the tune cases, with the sum 1.
        calibrate: divides each teacher's logits by the temperature that fits the tune cases best.
        drop_teacher: probability that a teacher is left out of a step.
        shuffle_teachers: negative control: the teachers' maps are those of another sample of the batch.
    """

    mode: Literal["paper", "attention", "projected", "balanced"] = "paper"
    similarity_coarse: float = 1.0
    similarity_fine: float = 1.0
    divergence: float = 1.0
    divergence_form: Literal["kl", "js"] = "kl"
    direction: Literal["student_teacher", "teacher_student"] = "student_teacher"
    temperature: float = 1.0
    foreground_balanced: bool = False
    balancing: Literal["none", "gradient"] = "none"
    teacher_outputs: Literal["online", "cached"] = "online"
    cached_views: int = 8
    cache_gigabytes: float = 8.0
    quarter_turns: bool = True
    teacher_weighting: Literal["fixed", "uniform", "tune_dice"] = "fixed"
    calibrate: bool = False
    drop_teacher: float = 0.0
    shuffle_teachers: bool = False


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Adam or SGD, with the learning rate lr * (1 - step / steps)^power.

    Attributes:
        name: 'adam', or 'sgd' with Nesterov's momentum (nnU-Net's recipe: learning rate 0.01, weight decay 3e-5).
        learning_rate: at the first step.
        weight_decay: L2 penalty in the gradient, on all parameters.
        momentum: of SGD.
        epsilon: of Adam, added to the root of the second moment.
        power: of the polynomial decay.
    """

    name: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.99
    epsilon: float = 1e-8
    power: float = 0.9

    def problems(self) -> list[tuple[bool, str]]:
        """What must hold, and the words where it does not."""
        return [
            (0 < self.learning_rate < inf, "optimiser.learning_rate must be positive, and finite"),
            (0 <= self.weight_decay < inf, "optimiser.weight_decay must not be negative, and finite"),
            (self.name != "sgd" or 0 < self.momentum < 1, "optimiser.momentum must lie between 0 and 1"),
            (0 < self.epsilon < inf, "optimiser.epsilon must be positive, and finite"),
            (0 <= self.power < inf, "optimiser.power must not be negative, and finite"),
        ]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training of one network, alone or from teachers.

    Attributes:
        data: dataset folder, its name under TEACHFORMER_DATA, or a folder made by 'teachformer data prepare'.
        run: run folder, under TEACHFORMER_RUNS unless absolute; the same run resumes.
        network: name, see 'teachformer networks'.
        channels: channels of the dataset, in the network's order.
        patch_size: of a training view in voxels, z, y, x; with two numbers, y, x, the network is 2D and sees slices.
        spacing: of the model's grid in mm, x, y, z along the patient axes.
        splits: nnU-Net's splits_final.json; not needed for fold 'all'.
        kept_out: dataset whose test cases (imagesTs, labelsTs), or folder that 'data prepare --split Ts' made of them,
            are scored once with the final weights, and used for nothing else.
        fold: number of the fold, or 'all' for every case (for a model that ships): no val cases, tune ones as ever.
        max_steps: optimiser steps.
        max_epochs: passes over the training cases, instead of max_steps.
        seed: of weights, views, order and the tune patients.
        protocol: 'sound' chooses on tune patients, kept out of the training ones; 'paper' chooses on the val cases, and
            every training patient trains.
        patience: epochs without a better choice after which training stops and the best weights are kept; without it
            all steps run and the final weights are kept. Teach-Former: 40.
        check_every: epochs between two looks at the cases that choose.
        batch_size: views per step.
        image_size: the network is built for this size and inference uses windows of it; the patch size unless given.
        network_arguments: passed on to the network.
        loss: see LossConfig.
        teachers: finished runs that teach this one, see TeacherConfig; none trains the network alone.
        distillation: see DistillationConfig; means something with teachers only.
        optimiser: see OptimiserConfig.
        augmentation: see AugmentationConfig.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto is bf16 where the device has it natively, fp32 elsewhere.
        compile: torch.compile the network.
        workers: processes that draw views; 0 draws them in the training process.
        tensorboard: writes TensorBoard's logs beside metrics.csv.
    """

    data: str
    run: str
    network: str
    channels: list[str]
    patch_size: list[int]
    spacing: list[float]
    splits: str | None = None
    kept_out: str | None = None
    fold: int | Literal["all"] = 0
    max_steps: int | None = None
    max_epochs: int | None = None
    seed: int = 0
    protocol: Literal["sound", "paper"] = "sound"
    patience: int | None = None
    check_every: int = 5
    batch_size: int = 2
    image_size: list[int] | None = None
    network_arguments: dict[str, Any] = field(default_factory=dict)
    loss: LossConfig = field(default_factory=LossConfig)
    teachers: list[TeacherConfig] = field(default_factory=list)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    workers: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        problems = [
            (bool(self.channels), "channels must name at least one channel"),
            (len(self.patch_size) in (2, 3), "patch_size needs three numbers (z, y, x), or two in 2D"),
            (all(n >= 32 and n % 16 == 0 for n in self.patch_size), "patch_size must be multiples of 16, 32 or more"),
            (len(self.spacing) == 3 and all(s > 0 for s in self.spacing), "spacing needs three positive numbers in mm"),
            ((self.max_steps is None) != (self.max_epochs is None), "give either max_steps or max_epochs"),
            ((self.max_steps or self.max_epochs or 1) > 0, "max_steps and max_epochs must be positive"),
            (self.fold == "all" or self.splits is not None, "a numbered fold needs splits, a splits_final.json"),
            (self.batch_size > 0 and self.check_every > 0, "batch_size and check_every must be positive"),
            (self.seed >= 0 and self.workers >= 0, "seed and workers must not be negative"),
            (bool(self.run.strip()) and ".." not in Path(self.run).parts, "run must name a folder, without '..'"),
            *self.loss.problems(),
            *self.optimiser.problems(),
            (
                all(0 < one.weight < inf for one in self.teachers),
                "the weight of a teacher must be positive, and finite",
            ),
            (0 < self.distillation.temperature < inf, "distillation.temperature must be positive, and finite"),
            (
                not (self.compile and self.distillation.balancing == "gradient"),
                "distillation.balancing takes several gradients of one pass, which 'compile' forbids: set it to false",
            ),
            (
                self.batch_size > 1 or not self.distillation.shuffle_teachers,
                "distillation.shuffle_teachers takes the maps of another sample: give a batch_size of 2 or more",
            ),
            (
                self.distillation.cached_views > 0 and self.distillation.cache_gigabytes > 0,
                "distillation.cached_views and distillation.cache_gigabytes must be positive",
            ),
            (
                self.distillation.teacher_weighting == "fixed" or all(teacher.weight == 1 for teacher in self.teachers),
                "weights of teachers are for distillation.teacher_weighting 'fixed', the others make their own",
            ),
            (0 <= self.augmentation.channel_dropout < 1, "augmentation.channel_dropout is a probability below 1"),
            (self.patience is None or self.patience > 0, "patience must be positive"),
            (
                self.protocol == "sound" or self.fold != "all",
                "protocol 'paper' chooses on val cases, and fold 'all' has none",
            ),
            (
                self.protocol == "sound"
                or not (self.distillation.calibrate or self.distillation.teacher_weighting == "tune_dice"),
                "teachers are weighed and calibrated on tune cases, and protocol 'paper' has none",
            ),
            (
                self.image_size is None or len(self.image_size) == len(self.patch_size),
                "image_size must have as many numbers as patch_size",
            ),
        ]
        for holds, sentence in problems:
            if not holds:
                raise InputError(f"The configuration cannot be used: {sentence}.")

    @property
    def window(self) -> tuple[int, ...]:
        """The size the network is built for."""
        return tuple(self.image_size or self.patch_size)
