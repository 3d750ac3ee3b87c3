"""A training from its configuration to its final weights and the scores of the cases it never saw."""

import csv
import hashlib
import io
import json
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as lightning
import torch
from safetensors.torch import save_file

from ..data.prepared import PreparedData
from ..data.splits import FoldSplit, read_splits
from ..devices import choose_device, has_fast_bf16, prefer_layout
from ..distillation.attention_similarity import AttentionSimilarity
from ..distillation.pixelwise_divergence import PixelwiseDivergence
from ..distillation.segmentation_loss import SegmentationLoss
from ..distillation.task import DistillationTask, SegmentationTask, Teacher
from ..errors import InputError, missing_dependency
from ..networks import SegmentationNetwork, build_network
from ..progress import Progress
from .callbacks import Choice, MetricsFile, StepProgress
from .case_scores import CaseEvaluator, CaseScore
from .checkpoint import Checkpoint
from .config import TrainConfig
from .datasource import prepared_data
from .module import TrainingModule
from .run_folder import (
    CHECKPOINT,
    MANIFEST_FILE,
    METRICS_FILE,
    PER_CASE_FILE,
    WEIGHTS_FILE,
    claim_run,
    write_manifest,
    write_whole,
)
from .teachers import load_teachers
from .views import Views, view_loader


def train(config: TrainConfig) -> Path:
    """Trains a network, or resumes where the run stopped, and returns the run's folder.

    The folder then holds ``weights.safetensors``, ``per_case.csv`` (Dice of the val cases on the model's grid, with the
    final weights, once), ``manifest.json`` (patients, hashes, versions) and ``metrics.csv``.

    Raises:
        InputError: the configuration or the data cannot be used.
        TeachFormerError: a loss term is no longer finite.
    """
    prepared = prepared_data(config)
    split = read_splits(config.splits, config.fold, prepared.plan.patients, seed=config.seed)
    classes = class_count(prepared)
    folder = claim_run(config)
    if (folder / MANIFEST_FILE).exists():
        return folder

    device = choose_device(config.device)
    bf16 = config.precision == "bf16" or (config.precision == "auto" and has_fast_bf16(device))
    torch.manual_seed(config.seed)
    network = new_network(config, classes=classes, device=device)
    teachers, teacher_records = load_teachers(config, prepared=prepared, split=split, classes=classes, device=device)
    loss = SegmentationLoss(focal_gamma=config.loss.focal_gamma, whole_batch_dice=config.loss.whole_batch_dice)
    task = new_task(config, network=network, loss=loss, teachers=teachers)
    views = Views(prepared, patch_size=config.patch_size, augmentation=config.augmentation, seed=config.seed)
    evaluator = CaseEvaluator(prepared, loss=loss, window=config.window, device=device, bf16=bf16)
    choice = Choice(
        evaluator,
        split.tune_cases if config.protocol == "sound" else split.val_cases,
        every=config.check_every,
        patience=config.patience,
    )
    checkpoint = Checkpoint(folder / CHECKPOINT, choice)
    loader = view_loader(
        views,
        split.train_cases,
        batch_size=config.batch_size,
        first_epoch=checkpoint.epoch,
        workers=config.workers,
        pin_memory=device.type == "cuda",
    )
    steps = config.max_steps or (config.max_epochs or 0) * len(loader)
    module = TrainingModule(
        task=task,
        optimiser=config.optimiser,
        steps=steps,
        seed=config.seed,
        first_epoch=checkpoint.epoch,
        first_step=checkpoint.step,
    )
    started = time.monotonic()
    _fit(module, loader, config, folder, device, bf16, choice, checkpoint)
    seconds = time.monotonic() - started

    network.to(device)
    if choice.best_weights:
        network.load_state_dict(choice.best_weights)
    leaving_out, weights = network.inference_form()
    save_weights(weights, folder / WEIGHTS_FILE)
    with Progress(len(split.val_cases), f"scoring {config.run}") as progress:
        scores = []
        for case in split.val_cases:
            scores.append(evaluator.score(network, case))
            progress.advance()
    write_whole(folder / PER_CASE_FILE, _per_case_table(scores))
    write_manifest(
        folder,
        {
            "config": json.loads(json.dumps(asdict(config))),
            "network": {"name": config.network, "arguments": config.network_arguments | leaving_out},
            "data": describe_data(prepared, config, split),
            "patients": patients_by_role(prepared, split),
            "teachers": teacher_records,
            "steps": module.step,
            "best_epoch": choice.best_epoch if choice.best_weights else None,
            "device": device.type,
            "precision": "bf16" if bf16 else "fp32",
            "seconds_per_step": round(seconds / module.global_step, 4) if module.global_step else None,
            "weights_sha256": hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
            "val_dice": _mean([score.mean_dice for score in scores]),
        },
    )
    return folder


def class_count(prepared: PreparedData) -> int:
    """Classes of the data, background included.

    Raises:
        InputError: label values with gaps.
    """
    values = sorted(prepared.plan.labels.values())
    if values != list(range(len(values))) or len(values) < 2:
        raise InputError(f"Training needs the label values 0, 1, 2, ...; {prepared.plan.dataset} has {values}.")
    return len(values)


def new_network(config: TrainConfig, *, classes: int, device: torch.device) -> SegmentationNetwork:
    """The configuration's network with random weights.

    Raises:
        InputError: no such network, or arguments it does not take.
    """
    try:
        network = build_network(
            config.network,
            in_channels=len(config.channels),
            out_channels=classes,
            spatial_dims=len(config.window),
            image_size=config.window,
            **config.network_arguments,
        )
    except ValueError as error:
        raise InputError(f"The configuration cannot be used: {error}") from error
    network = prefer_layout(network, device)
    if config.compile:
        network.maps = torch.compile(network.maps)  # type: ignore[method-assign]
    return network


def new_task(
    config: TrainConfig, *, network: SegmentationNetwork, loss: SegmentationLoss, teachers: list[Teacher]
) -> SegmentationTask:
    """The task of the configuration: Eq. 3 alone, or Eq. 4 with teachers.

    Raises:
        InputError: teachers that do not fit the network.
    """
    weights = {"dice": config.loss.dice, "focal": config.loss.focal}
    if not teachers:
        return SegmentationTask(student=network, loss=loss, weights=weights)
    settings = config.distillation
    names = ("similarity_coarse", "similarity_fine", "divergence")
    try:
        return DistillationTask(
            student=network,
            teachers=teachers,
            loss=loss,
            similarity=AttentionSimilarity(mode=settings.mode),
            divergence=PixelwiseDivergence(direction=settings.direction, temperature=settings.temperature),
            weights=weights | {name: getattr(settings, name) for name in names},
        )
    except ValueError as error:
        raise InputError(f"The configuration cannot be used: {error}") from error


def save_weights(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Writes weights as safetensors, contiguous, from the CPU; the file is never seen half-written."""
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(plain, file.with_name(f".{file.name}"))
    file.with_name(f".{file.name}").replace(file)


def patients_by_role(prepared: PreparedData, split: FoldSplit) -> dict[str, list[str]]:
    """Patients trained on, tuned on and kept out: what decides whom this network may teach."""
    patients = prepared.plan.patients
    return {
        "training": sorted({patients[case] for case in split.train_cases}),
        "tuning": sorted({patients[case] for case in split.tune_cases}),
        "validation": sorted({patients[case] for case in split.val_cases}),
    }


def describe_data(prepared: PreparedData, config: TrainConfig, split: FoldSplit) -> dict[str, object]:
    """What a model card has to know of the data."""
    extents = list(prepared.fields_of_view.values())  # how the whole dataset was cut, kept-out cases included
    return {
        "dataset": prepared.plan.dataset,
        "licence": prepared.plan.licence,
        "reference": prepared.plan.reference,
        "preparation": prepared.plan.key(),
        "channels": [asdict(channel) for channel in prepared.plan.channels],
        "labels": prepared.plan.labels,
        "split": hashlib.sha256(json.dumps([config.fold, asdict(split)]).encode()).hexdigest(),
        "largest_field_of_view_mm": [max(extent[axis] for extent in extents) for axis in range(3)],
    }


def _fit(
    module: TrainingModule,
    loader: torch.utils.data.DataLoader,  # type: ignore[type-arg]
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    bf16: bool,
    choice: Choice,
    checkpoint: Checkpoint,
) -> None:
    """Runs Lightning from where the checkpoint left off to the last step."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision="bf16-mixed" if bf16 else "32-true",
        max_steps=module.steps - module.first_step,
        max_epochs=-1,
        callbacks=[
            choice,
            MetricsFile(folder / METRICS_FILE, choice, module.task.term_names),
            StepProgress(f"training {config.run}"),
            checkpoint,
        ],
        enable_checkpointing=False,
        logger=_tensorboard(folder) if config.tensorboard else False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        # Lightning advises on loader workers and logging intervals, which the configuration decides.
        warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            trainer.fit(module, loader)
        except SystemExit:
            if trainer.interrupted:  # Lightning turns Ctrl+C into exit code 1
                raise KeyboardInterrupt from None
            raise


def _tensorboard(folder: Path) -> "lightning.pytorch.loggers.Logger":  # type: ignore[name-defined]
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(save_dir=folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise missing_dependency("tensorboard", extra="tensorboard", purpose="write TensorBoard's logs") from error


def _per_case_table(scores: Sequence[CaseScore]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "label", "dice", "loss"])
    for score in scores:
        for label, value in score.dice.items():
            writer.writerow([score.case, label, "" if value is None else f"{value:.6f}", f"{score.loss:.6f}"])
    return stream.getvalue()


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
