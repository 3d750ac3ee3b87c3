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


def untrained_run(config: TrainConfig, **changes: Any) -> Path:
    """What a student reads of a finished run, with random weights; ``changes`` go into the manifest."""
    prepared = prepared_data(config)
    split = read_splits(config.splits, config.fold, prepared.plan.patients, seed=config.seed)
    folder = claim_run(config)
    torch.manual_seed(config.seed)
    network = new_network(config, classes=2, device=torch.device("cpu"))
    write_tensors(folder / "weights.safetensors", network.state_dict())
    content = {
        "config": asdict(config),
        "network": {"name": config.network, "arguments": config.network_arguments},
        "data": describe_data(prepared, config, split),
        "patients": patients_by_role(prepared, split),
        "teachers": [],
        "weights_sha256": sha256_of(folder / "weights.safetensors"),
    }
    write_manifest(folder, content | changes)
    return folder
