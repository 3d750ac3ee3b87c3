"""Teachers from their runs: the same data, the same grid, and never a patient that the fold keeps out."""

from typing import Any

import torch
from safetensors.torch import load_file

from ..data.prepared import PreparedData
from ..data.splits import FoldSplit
from ..devices import prefer_layout
from ..distillation.task import Teacher
from ..errors import InputError
from ..inference.model_folder import sha256_of
from ..networks import build_network
from .config import TeacherConfig, TrainConfig
from .run_folder import WEIGHTS_FILE, read_manifest, run_path


def load_teachers(
    config: TrainConfig, *, prepared: PreparedData, split: FoldSplit, classes: int, device: torch.device
) -> tuple[list[Teacher], list[dict[str, Any]]]:
    """The configuration's teachers, and what the student's manifest says of each.

    Raises:
        InputError: a run that is not finished, on other data, channels or grid, or one that saw a patient whom the
            student's fold keeps out; the patient is named.
    """
    teachers, records = [], []
    for wanted in config.teachers:
        folder = run_path(wanted.run)
        manifest = read_manifest(folder)
        _check_fits(wanted, manifest, prepared)
        check_leak(wanted.run, manifest, {prepared.plan.patients[case] for case in split.val_cases})
        weights = folder / WEIGHTS_FILE
        if not weights.is_file() or sha256_of(weights) != manifest["weights_sha256"]:
            raise InputError(f"{weights} is not the file the teacher's manifest was written for: train it again.")
        trained = manifest["config"]
        window = trained["image_size"] or trained["patch_size"]
        network = build_network(
            manifest["network"]["name"],
            in_channels=len(trained["channels"]),
            out_channels=classes,
            spatial_dims=len(window),
            image_size=window,
            **manifest["network"]["arguments"],
        )
        network.load_state_dict(load_file(weights))
        teachers.append(Teacher(name=wanted.run, network=prefer_layout(network, device), weight=wanted.weight))
        records.append(
            {
                "run": wanted.run,
                "weight": wanted.weight,
                "network": manifest["network"],
                "weights_sha256": manifest["weights_sha256"],
                "fold": trained["fold"],
                "training_patients": manifest["patients"]["training"],
                "tuning_patients": manifest["patients"]["tuning"],
            }
        )
    return teachers, records


def check_leak(run: str, manifest: dict[str, Any], kept_out: set[str]) -> None:
    """Refuses a teacher that was trained or tuned on a patient whom the student's fold keeps out.

    Raises:
        InputError: naming the patients.
    """
    for role in ("training", "tuning"):
        leaked = sorted(kept_out & set(manifest["patients"][role]))
        if leaked:
            raise InputError(
                f"The teacher {run} saw the patient {', '.join(leaked)} in {role}, whom this fold keeps out for the "
                "report: its knowledge would leak. Take the teacher of the same fold."
            )


def _check_fits(wanted: TeacherConfig, manifest: dict[str, Any], prepared: PreparedData) -> None:
    data, plan = manifest["data"], prepared.plan
    ours = {
        "dataset": plan.dataset,
        "channels": [channel.name for channel in plan.channels],
        "labels": plan.labels,
        "spacing": list(plan.spacing),
    }
    theirs = {
        "dataset": data["dataset"],
        "channels": [channel["name"] for channel in data["channels"]],
        "labels": data["labels"],
        "spacing": manifest["config"]["spacing"],
    }
    for what, value in ours.items():
        if theirs[what] != value:
            raise InputError(
                f"The teacher {wanted.run} was trained with {what} {theirs[what]}, the student has {value}: both must "
                "see the same images."
            )
