"""A prepared dataset small enough to train on in seconds: bright balls in noise, 8 patients."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plans import write_ct_pet_plan

from TeachFormerCore.data.augmentation import AugmentationConfig
from TeachFormerCore.training.config import TrainConfig

PATIENTS = [f"P{number}" for number in range(8)]


@pytest.fixture
def prepared_folder(tmp_path: Path) -> Path:
    from safetensors.numpy import save_file

    folder = tmp_path / "prepared"
    folder.mkdir()
    random = np.random.default_rng(0)
    for patient in PATIENTS:
        grid = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1)
        label = (np.linalg.norm(grid - random.uniform(10, 22, 3), axis=-1) < random.uniform(4, 8)).astype(np.uint8)
        image = np.stack([label * 0.8, label * 1.5]) + random.normal(0, 0.1, (2, 32, 32, 32))
        save_file({"image": image.astype(np.float16), "label": label}, folder / f"{patient}.safetensors")
    write_ct_pet_plan(folder, patients=PATIENTS, label="ball", extent=(128.0, 128.0, 128.0))
    return folder


@pytest.fixture
def config(prepared_folder: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A configuration for a few steps of a very small network; keywords override it."""
    splits = tmp_path / "splits.json"
    splits.write_text(
        json.dumps([{"train": PATIENTS[:6], "val": PATIENTS[6:]}, {"train": PATIENTS[2:], "val": PATIENTS[:2]}])
    )
    small = TrainConfig(
        data=str(prepared_folder),
        run=str(tmp_path / "run"),
        network="h_denseformer_light",
        network_arguments={"filters": 2, "transformer_depth": 4},
        channels=["CT", "PET"],
        patch_size=[32, 32, 32],
        spacing=[4.0, 4.0, 4.0],
        splits=str(splits),
        fold=0,
        max_steps=6,
        check_every=1,
        augmentation=AugmentationConfig(),
        device="cpu",
    )
    return lambda **changes: replace(small, **changes)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished cross-validation with a known answer (miniature.py), made once."""
    from miniature import run_miniature

    return run_miniature(tmp_path_factory.mktemp("miniature"))
