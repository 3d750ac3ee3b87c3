"""Teachers from their runs: the same data, the same grid, and never a patient that the fold keeps out."""

from typing import Any

import torch
from safetensors.torch import load_file

from ..data.prepared import PreparedData
from ..data.splits import FoldSplit
from ..devices import prefer_layout
from ..distillation.teacher import Teacher
from ..errors import InputError
from ..files import sha256_of
from ..networks import build_network
from ..run_files import chosen_on_validation, read_manifest
from .case_scores import case_evaluator
from .config import TeacherConfig, TrainConfig
from .run_folder import WEIGHTS_FILE, run_path
from .teacher_weights import weigh_teachers


def load_teachers(
    config: TrainConfig,
    *,
    prepared: PreparedData,
    split: FoldSplit,
    classes: int,
    device: torch.device,
    kept_out: PreparedData | None = None,
) -> tuple[list[Teacher], list[dict[str, Any]]]:
    """The configuration's teachers, frozen, on the device, weighted and calibrated as it says, and what the student's
    manifest says of each.

    Raises:
        InputError: a run that is not finished, on other data, channels or grid, one that saw a patient whom the
            student's fold or the whole cross-validation keeps out (the patient is named), or taps that it cannot be
            built with; see also :func:`weigh_teachers`.
    """
    teachers, records = [], []
    reported = {prepared.plan.patients[case] for case in split.val_cases}
    reported |= set(kept_out.plan.patients.values()) if kept_out else set()
    for wanted in config.teachers:
        folder = run_path(wanted.run)
        manifest = read_manifest(folder)
        _check_fits(wanted, manifest, prepared)
        record = _record(wanted, manifest)
        check_leak(record, reported, protocol=config.protocol)
        weights = folder / WEIGHTS_FILE
        if not weights.is_file() or sha256_of(weights) != manifest["weights_sha256"]:
            raise InputError(f"{weights} is not the file the teacher's manifest was written for: train it again.")
        trained = manifest["config"]
        window = trained["image_size"] or trained["patch_size"]
        try:
            network = build_network(
                manifest["network"]["name"],
                in_channels=len(trained["channels"]),
                out_channels=classes,
                spatial_dims=len(window),
                image_size=window,
                **record["network"]["arguments"],
            )
            network.load_state_dict(load_file(weights))
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"The teacher {wanted.run} cannot be built with the taps {wanted.taps} ({reason}): taps choose maps, "
                "they do not change the weights."
            ) from error
        network = prefer_layout(network, device).to(device).eval().requires_grad_(requires_grad=False)
        teachers.append(Teacher(name=wanted.run, network=network, weight=wanted.weight))
        records.append(record)
    evaluator = case_evaluator(config, prepared, device)
    return weigh_teachers(teachers, records, settings=config.distillation, split=split, evaluator=evaluator)


def check_leak(record: dict[str, Any], kept_out: set[str], *, protocol: str = "sound") -> None:
    """Refuses a teacher that saw a patient whom the student's fold keeps out, itself or through its own teachers.

    It saw whom it was trained or tuned on, and, where a best epoch was chosen on val cases (protocol 'paper'), those
    too; a student of that protocol takes this as the protocol has it.

    Args:
        record: of the teacher.
        kept_out: the patients.
        protocol: of the student.

    Raises:
        InputError: naming the patients.
    """
    roles = ["training", "tuning"] + ["validation"] * (bool(record.get("chosen_on_validation")) and protocol == "sound")
    for role in roles:
        leaked = sorted(kept_out & set(record[f"{role}_patients"]))
        if leaked:
            raise InputError(
                f"The teacher {record['run']} saw the patient {', '.join(leaked)} in {role}, whom this fold keeps out "
                "for the report: its knowledge would leak. Take the teacher of the same fold."
            )
    for teacher in record.get("teachers", []):
        check_leak(teacher, kept_out, protocol=protocol)


def _record(wanted: TeacherConfig, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the student's manifest says of a teacher."""
    trained, patients = manifest["config"], manifest["patients"]
    network = manifest["network"]
    return {
        "run": wanted.run,
        "weight": wanted.weight,
        "taps": wanted.taps,
        "network": network | {"arguments": network["arguments"] | wanted.taps},
        "weights_sha256": manifest["weights_sha256"],
        "fold": trained["fold"],
        "seed": trained["seed"],
        "chosen_on_validation": chosen_on_validation(trained),
        "training_patients": patients["training"],
        "tuning_patients": patients["tuning"],
        "validation_patients": patients["validation"],
        "teachers": manifest.get("teachers", []),
    }


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
