"""The loss audit: how large each term of Eq. 4 is, how hard it pulls on the student, and whether with its labels."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..devices import choose_device, computes_in_bf16
from ..distillation.balancing import gradient_of
from ..distillation.distillation_task import DistillationTask, sum_over_teachers
from ..distillation.task import SELF_DISTILLATION, TASK_TERMS
from ..distillation.teacher import Teacher
from ..errors import InputError
from ..files import write_whole
from ..progress import Progress
from ..run_files import AUDIT_FILE, CONFIG_FILE, MANIFEST_FILE, read_manifest
from .checkpoint import read_checkpoint
from .config import TrainConfig
from .datasource import fold_split, prepared_data
from .run_folder import CHECKPOINT, WEIGHTS_FILE, differing_keys, run_path
from .tasks import new_task
from .teachers import load_teachers
from .train import class_count, new_network
from .views import Views, view_loader

TASK_ROW, ALL_TEACHERS, TOTAL_ROW = "Eq. 3", "all", "Eq. 4"


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """A part of the loss, in the mean over the batches.

    Attributes:
        term: its name, ``TASK_ROW`` or ``TOTAL_ROW``.
        teacher: whose it is, ``ALL_TEACHERS`` for a sum over them, None for what needs no teacher.
        size: its value before all weights; None for sums of several terms.
        weight: all that it is multiplied with in the loss: its own, the teacher's, the balance; None for sums.
        loss: its part of the loss.
        gradient_norm: length of that part's gradient over all of the student's parameters.
        gradient_ratio: over the length of Eq. 3's gradient; None where there is none.
        cosine: of the angle to Eq. 3's gradient; below 0 it pulls against the labels. None without a gradient.
    """

    term: str
    teacher: str | None
    size: float | None
    weight: float | None
    loss: float
    gradient_norm: float
    gradient_ratio: float | None
    cosine: float | None


@dataclass(frozen=True, kw_only=True)
class LossAudit:
    """The rows, and what they were measured on.

    Attributes:
        run: as in the configuration.
        state: of the student.
        step: of that state.
        batches: that were looked at, the first ones of the training.
        batch_size: views in each.
        device: where.
        precision: fp32 or bf16.
        rows: Eq. 3's terms and it, the teachers' terms one by one, what else there is, and Eq. 4.
    """

    run: str
    state: str
    step: int
    batches: int
    batch_size: int
    device: str
    precision: str
    rows: tuple[AuditRow, ...]


def audit(config: TrainConfig, *, batches: int = 1) -> LossAudit:
    """Measures the terms on the first batches of the configured training; nothing is written, see :func:`keep`.

    The student is in the state of its run: final, else the checkpoint's, else initial. All
    teachers are asked, online, in training mode and precision; ``drop_teacher`` is left aside.

    Raises:
        InputError: as for the training, or a run whose network is another one.
    """
    if batches < 1:
        raise InputError(f"An audit needs at least one batch, not {batches}.")
    prepared = prepared_data(config)
    split = fold_split(config, prepared)
    device, classes = choose_device(config.device), class_count(prepared)
    bf16 = computes_in_bf16(config.precision, device)
    torch.manual_seed(config.seed)
    plain = replace(config, compile=False)  # a compiled network forbids a second gradient of a pass
    network = new_network(plain, classes=classes, device=device)
    teachers, _ = load_teachers(config, prepared=prepared, split=split, classes=classes, device=device)
    task = new_task(config, network=network, teachers=teachers)
    if not isinstance(task, DistillationTask):
        raise InputError("The configuration names no teachers: there is nothing to audit.")
    state, step = load_state(task, run_path(config.run))
    task.to(device).train()
    views = Views(prepared, patch_size=config.patch_size, augmentation=config.augmentation, seed=config.seed)
    loader = view_loader(
        views, split.train_cases, batch_size=config.batch_size, first_epoch=0, workers=0, pin_memory=False
    )
    measured = []
    with Progress(min(batches, len(loader)), f"auditing {config.run}") as progress:
        for number, (image, label, _, kept) in enumerate(islice(loader, batches)):
            torch.manual_seed(hash((config.seed, number)) % 2**63)  # as the training's step
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                measured.append(measure(task, image.to(device), label.to(device), kept.to(device)))
            progress.advance()
    return LossAudit(
        run=config.run,
        state=state,
        step=step,
        batches=len(measured),
        batch_size=config.batch_size,
        device=device.type,
        precision="bf16" if bf16 else "fp32",
        rows=tuple(_mean_row(rows) for rows in zip(*measured, strict=True)),
    )


def load_state(task: DistillationTask, folder: Path) -> tuple[str, int]:
    """Puts the task where its run is; says in words where that is, and at which step.

    What learns beside the student may be missing: the run may have other terms than are audited.

    Raises:
        InputError: the run's network is another one.
    """
    state, step = "its initial weights", 0
    try:
        if (folder / CHECKPOINT).is_file():
            found = read_checkpoint(folder / CHECKPOINT)
            keys = task.load_state_dict(found["task"], strict=False)
            _require(not any(key.startswith("student.") for key in (*keys.missing_keys, *keys.unexpected_keys)))
            state, step = "the weights of its checkpoint", found["step"]
        if (folder / MANIFEST_FILE).is_file():
            keys = task.student.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=False)
            _require(not keys.unexpected_keys)
            _require(all(key.startswith(tuple(task.student.training_only)) for key in keys.missing_keys))
            state, step = "its final weights", read_manifest(folder)["steps"]
    except (RuntimeError, KeyError) as error:
        raise InputError(f"{folder} is a run of another network: audit with its own config.yaml.") from error
    return state, step


def keep(made: LossAudit, config: TrainConfig) -> str:
    """Writes an audit into the folder of its run, where the report looks for it; says in words where, or why not.

    Only a run that was started with this very configuration keeps it: of another one it would tell nothing.
    """
    folder = run_path(config.run)
    if not (folder / CONFIG_FILE).is_file():
        return f"not kept for the report: {folder} is not started yet"
    if differing := differing_keys(config, folder):
        return f"not kept for the report: {folder} has another configuration (different: {', '.join(differing)})"
    write_whole(folder / AUDIT_FILE, json.dumps(asdict(made), indent=1, allow_nan=False) + "\n")
    return f"kept for the report in {folder / AUDIT_FILE}"


def _require(holds: bool) -> None:
    if not holds:
        raise KeyError("not the network's weights")


def measure(task: DistillationTask, image: Tensor, label: Tensor, kept: Tensor | None = None) -> list[AuditRow]:
    """The rows of one batch, with the task in training mode."""
    parameters = list(task.student.parameters())
    maps = task.student_maps(image, kept)
    own = task.own_terms(maps, label)
    taught = [
        task.teacher_terms(number, maps, teacher.maps(image), label) for number, teacher in enumerate(task.teachers)
    ]
    weights = [teacher.weight for teacher in task.teachers]
    scales = task.scales(own, sum_over_teachers(taught, weights))

    def part(term: str, teacher: Teacher | None, value: Tensor) -> _Part:
        weight = task.weights.get(term, 1.0) * (1.0 if teacher is None else teacher.weight * float(scales[term]))
        return _Part(
            term=term,
            teacher=None if teacher is None else teacher.name,
            size=value.item(),
            weight=weight,
            loss=weight * value.item(),
            gradient=weight * gradient_of(value, parameters),
        )

    parts = [part(name, None, own[name]) for name in TASK_TERMS if name in task.term_names]
    labels = _sum(parts, TASK_ROW)
    parts.append(labels)
    for name in task.teaching_terms:
        each = [part(name, teacher, terms[name]) for teacher, terms in zip(task.teachers, taught, strict=True)]
        parts += [*each, _sum(each, name, ALL_TEACHERS)] if len(each) > 1 else each
    if SELF_DISTILLATION in own:
        parts.append(part(SELF_DISTILLATION, None, own[SELF_DISTILLATION]))
    parts.append(_sum([each for each in parts if each.size is not None], TOTAL_ROW))
    return [_row(each, labels.gradient) for each in parts]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What a row tells, with the gradient itself."""

    term: str
    teacher: str | None
    size: float | None
    weight: float | None
    loss: float
    gradient: Tensor


def _sum(parts: Sequence[_Part], term: str, teacher: str | None = None) -> _Part:
    gradient = torch.stack([part.gradient for part in parts]).sum(0)
    loss = sum(part.loss for part in parts)
    return _Part(term=term, teacher=teacher, size=None, weight=None, loss=loss, gradient=gradient)


def _row(part: _Part, labels: Tensor) -> AuditRow:
    gradient, labels = part.gradient.double(), labels.double()  # millions of parameters: float32 loses the cosine of 1
    norm, wanted = gradient.norm().item(), labels.norm().item()
    return AuditRow(
        term=part.term,
        teacher=part.teacher,
        size=part.size,
        weight=part.weight,
        loss=part.loss,
        gradient_norm=norm,
        gradient_ratio=norm / wanted if wanted else None,
        cosine=(gradient @ labels).item() / (norm * wanted) if norm * wanted else None,
    )


def _mean_row(rows: Sequence[AuditRow]) -> AuditRow:
    """Of the same row of several batches; a figure that a batch has not is left out of it."""
    means = {}
    for name in ("size", "weight", "loss", "gradient_norm", "gradient_ratio", "cosine"):
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return replace(rows[0], **means)  # type: ignore[arg-type]
