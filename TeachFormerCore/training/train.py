"""A training from its configuration to its final weights and the scores of the cases it never saw."""

import contextlib
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch

from ..data.prepared import PreparedData
from ..data.splits import FoldSplit
from ..devices import choose_device, device_name, prefer_layout
from ..distillation.teacher import Teacher
from ..errors import InputError, missing_dependency
from ..files import sha256_of
from ..networks import SegmentationNetwork, build_network
from ..paths import runs_folder
from ..run_files import CONFIG_FILE, MANIFEST_FILE, METRICS_FILE
from .cached_views import CachedViews
from .callbacks import Choice, MetricsFile, StepProgress
from .case_scores import case_evaluator
from .checkpoint import Checkpoint
from .config import TrainConfig
from .datasource import fold_split, kept_out_data, prepared_data
from .distributed import World, check_network, join_world
from .divergence import check_weights
from .entries import write_tensors
from .final_scores import score_kept_out_cases, score_val_cases
from .module import TrainingModule
from .run_folder import CHECKPOINT, WEIGHTS_FILE, claim_run, run_path, write_manifest
from .run_lock import training_alone
from .tasks import new_task
from .teacher_cache import TeacherCache
from .teachers import load_teachers
from .views import Views, ViewSource, view_loader


def train(config: TrainConfig) -> Path:
    """Trains a network, or resumes where the run stopped, and returns the run's folder.

    The folder then holds ``weights.safetensors``, ``per_case.csv`` (Dice of the val cases on the model's grid, with the
    final weights, once), ``predictions/`` (label and logits of these cases), ``subsets.csv`` (their Dice with
    every subset of the channels, after channel dropout), ``manifest.json`` (patients, hashes, versions, teachers) and
    ``metrics.csv``; where cases are kept out of the whole cross-validation, ``kept_out.csv`` and
    ``predictions_kept_out/`` too.

    Raises:
        InputError: the configuration or the data cannot be used, or another process is training this run.
        TeachFormerError: a loss term is no longer finite.
    """
    with contextlib.ExitStack() as held:  # the run's lock, from where something is written into its folder
        return _train(config, held)


def _train(config: TrainConfig, held: contextlib.ExitStack) -> Path:
    world = join_world(config)
    with world.main_first():
        prepared = prepared_data(config)
        kept_out = kept_out_data(config, prepared)
    split = fold_split(config, prepared)
    classes = class_count(prepared)
    folder = run_path(config.run)
    if (folder / CONFIG_FILE).exists():
        claim_run(config)  # refuses another configuration before anything is loaded
    if (folder / MANIFEST_FILE).exists():
        return folder

    device = world.device(choose_device(config.device))
    evaluator = case_evaluator(config, prepared, device)
    torch.manual_seed(config.seed)
    network = new_network(config, classes=classes, device=device)
    check_network(network, device, world)
    teachers, teacher_records = load_teachers(
        config, prepared=prepared, split=split, classes=classes, device=device, kept_out=kept_out
    )
    task = new_task(config, network=network, teachers=teachers)
    views = Views(prepared, patch_size=config.patch_size, augmentation=config.augmentation, seed=config.seed)
    cache = _teacher_cache(config, views, split, teachers, teacher_records, network, bf16=evaluator.bf16)
    data = describe_data(prepared, config, split)
    with world.main_first():
        if world.is_main:
            held.enter_context(training_alone(folder))
        claim_run(config)  # only now: what was refused up to here may be changed in the configuration
    if (folder / MANIFEST_FILE).exists():  # another process had the lock until now
        return folder

    choice = Choice(
        evaluator,
        split.tune_cases if config.protocol == "sound" else split.val_cases,
        every=config.check_every,
        patience=config.patience,
    )
    checkpoint = Checkpoint(folder / CHECKPOINT, choice, _origin(data, teacher_records, kept_out))
    source: ViewSource = views
    if cache:
        cache.fill()  # several processes share the work, and each leaves when all is there
        turns = config.distillation.quarter_turns
        source = CachedViews(views, cache.folders, count=cache.count, quarter_turns=turns)
    loader = view_loader(
        source,
        split.train_cases,
        batch_size=config.batch_size,
        first_epoch=checkpoint.epoch,
        workers=config.workers,
        pin_memory=device.type == "cuda",
        world=world,
    )
    steps = config.max_steps or (config.max_epochs or 0) * len(loader)
    module = TrainingModule(
        task=task,
        optimiser=config.optimiser,
        steps=steps,
        seed=config.seed,
        first_epoch=checkpoint.epoch,
        first_step=checkpoint.step,
        rank=world.rank,
    )
    checkpoint.restore(module)
    started = time.monotonic()
    if module.step < steps and not choice.stopped:
        _fit(module, loader, config, folder, device, evaluator.bf16, choice, checkpoint, world)
    seconds = time.monotonic() - started

    if not world.is_main:
        world.wait()
        return folder
    check_weights(task, step=module.step)
    network.to(device)
    if choice.best_weights:
        network.load_state_dict(choice.best_weights)
    leaving_out, weights = network.inference_form()
    write_tensors(folder / WEIGHTS_FILE, weights)
    val_scores = score_val_cases(config, network, evaluator, split.val_cases, folder)
    tested = None
    if kept_out:
        tested = score_kept_out_cases(config, network, case_evaluator(config, kept_out, device), folder)
    write_manifest(
        folder,
        {
            "config": json.loads(json.dumps(asdict(config))),
            "network": {"name": config.network, "arguments": config.network_arguments | leaving_out},
            "data": data,
            "patients": patients_by_role(prepared, split),
            "teachers": teacher_records,
            "teacher_cache": cache.record() if cache else None,
            "steps": module.step,
            "best_epoch": choice.best_epoch if choice.best_weights else None,
            "device": device.type,
            "device_name": device_name(device),
            "threads": torch.get_num_threads(),
            "processes": world.size,
            "precision": "bf16" if evaluator.bf16 else "fp32",
            "seconds_per_step": round(seconds / module.global_step, 4) if module.global_step else None,
            "weights_sha256": sha256_of(folder / WEIGHTS_FILE),
            **val_scores,
            "kept_out": tested,
        },
    )
    world.wait()
    return folder


def _origin(data: dict[str, Any], teachers: Sequence[dict[str, Any]], kept_out: PreparedData | None) -> dict[str, Any]:
    """What makes a run beside its configuration: no resumed training goes on with other patients or teachers."""
    return {
        "images": data["preparation"],
        "splits": data["split"],
        "cases kept out": kept_out.plan.key() if kept_out else None,
        "teachers": [teacher["weights_sha256"] for teacher in teachers],
    }


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
    except ModuleNotFoundError as error:
        raise missing_dependency("monai", extra="report", purpose=f"build the network '{config.network}'") from error
    network = prefer_layout(network, device)
    if config.compile:
        network.maps = torch.compile(network.maps)  # type: ignore[method-assign]
    return network


def patients_by_role(prepared: PreparedData, split: FoldSplit) -> dict[str, list[str]]:
    """Patients trained on, tuned on and kept out: what decides whom this network may teach."""
    patients = prepared.plan.patients
    return {
        "training": sorted({patients[case] for case in split.train_cases}),
        "tuning": sorted({patients[case] for case in split.tune_cases}),
        "validation": sorted({patients[case] for case in split.val_cases}),
    }


def describe_data(prepared: PreparedData, config: TrainConfig, split: FoldSplit) -> dict[str, Any]:
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


def _teacher_cache(
    config: TrainConfig,
    views: Views,
    split: FoldSplit,
    teachers: Sequence[Teacher],
    records: Sequence[dict[str, Any]],
    network: SegmentationNetwork,
    *,
    bf16: bool,
) -> TeacherCache | None:
    """The cache that the configuration asks for, its room checked, nothing of it computed yet."""
    if config.distillation.teacher_outputs == "online" or not teachers:
        return None
    return TeacherCache(
        runs_folder() / "teacher_maps",
        views=views,
        cases=split.train_cases,
        teachers=teachers,
        identities=[{key: record[key] for key in ("weights_sha256", "network")} for record in records],
        student=network,
        settings=config.distillation,
        bf16=bf16,
    )


def _fit(
    module: TrainingModule,
    loader: torch.utils.data.DataLoader,  # type: ignore[type-arg]
    config: TrainConfig,
    folder: Path,
    device: torch.device,
    bf16: bool,
    choice: Choice,
    checkpoint: Checkpoint,
    world: World,
) -> None:
    """Runs Lightning from where the checkpoint left off to the last step."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" and world.size == 1 else world.local_size,
        num_nodes=world.size // world.local_size,
        strategy="ddp" if world.size > 1 else "auto",
        sync_batchnorm=world.size > 1 and device.type == "cuda",
        use_distributed_sampler=False,  # the loader's own order deals the batches
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
