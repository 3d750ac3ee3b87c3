"""A teacher's run without its training."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from TeachFormerCore.data.splits import read_splits
from TeachFormerCore.inference.model_folder import sha256_of
from TeachFormerCore.training.config import TrainConfig
from TeachFormerCore.training.datasource import prepared_data
from TeachFormerCore.training.entries import write_tensors
from TeachFormerCore.training.run_folder import claim_run, write_manifest
from TeachFormerCore.training.train import describe_data, new_network, patients_by_role

NETWORK = {"name": "h_denseformer_light", "arguments": {"filters": 2, "transformer_depth": 4}}
TEACHER = {
    "run": "teacher", "weight": 1.0, "temperature": 1.0, "network": NETWORK, "weights_sha256": "0", "teachers": [],
    **{f"{role}_patients": [] for role in ("training", "tuning", "validation")},
}  # fmt: skip
# All that any reader of a finished run looks for.
MANIFEST: dict[str, Any] = {
    "config": {
        "data": "prepared", "network": "h_denseformer_light", "network_arguments": {}, "teachers": [],
        "channels": ["CT", "PET"], "patch_size": [32, 32, 32], "image_size": None, "spacing": [4.0, 4.0, 4.0],
        "fold": 0, "seed": 0, "protocol": "sound", "max_steps": 6, "patience": None, "distillation": {},
    },
    "network": NETWORK,
    "data": {
        "dataset": "balls", "licence": None, "reference": None, "preparation": "0", "split": "0", "channels": [],
        "labels": {"background": 0, "ball": 1}, "largest_field_of_view_mm": [128.0, 128.0, 128.0],
    },
    "patients": {"training": [], "tuning": [], "validation": []},
    "teachers": [],
    "steps": 6, "device": "cpu", "precision": "fp32", "seconds_per_step": None, "val_dice": None,
    "weights_sha256": "0", "versions": {"TeachFormer": "0"},
}  # fmt: skip


def untrained_run(config: TrainConfig, **changes: Any) -> Path:
    """What a student reads of a finished run, with random weights; ``changes`` go into the manifest."""
    prepared = prepared_data(config)
    split = read_splits(config.splits, config.fold, prepared.plan.patients, seed=config.seed)
    folder = claim_run(config)
    torch.manual_seed(config.seed)
    network = new_network(config, classes=2, device=torch.device("cpu"))
    write_tensors(folder / "weights.safetensors", network.state_dict())
    content = MANIFEST | {
        "config": asdict(config),
        "network": {"name": config.network, "arguments": config.network_arguments},
        "data": describe_data(prepared, config, split),
        "patients": patients_by_role(prepared, split),
        "weights_sha256": sha256_of(folder / "weights.safetensors"),
    }
    write_manifest(folder, content | changes)
    return folder
