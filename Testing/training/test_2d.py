"""A 2D network learns from 2D files, from volumes of one slice and from the slices of volumes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from safetensors.numpy import load_file

from TeachFormerCore.data.augmentation import AugmentationConfig, draw_patch, sample_patch
from TeachFormerCore.data.dataset import open_dataset
from TeachFormerCore.data.preparation import prepare
from TeachFormerCore.training.config import TrainConfig
from TeachFormerCore.training.entries import write_tensors
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]
STILL = AugmentationConfig(
    flip=0, rotation_degrees=0, scale=0, cut=0, shift=0, foreground=1, gain=0, noise=0
)  # only what is drawn without it


def test_2d_files_and_volumes_of_one_slice_are_prepared_alike(tmp_path: Path) -> None:
    """The same pixels in both forms give the same arrays, with the in-plane spacing asked for."""
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / "data" / name).mkdir(parents=True)
    pixels = np.random.default_rng(0).normal(100, 20, (40, 36)).astype(np.float32)
    label = np.zeros((40, 36), np.uint8)
    label[10:20, 8:22] = 1
    for case, dimensions in (("flat", 2), ("slice", 3)):
        for array, file in ((pixels, f"imagesTr/{case}_0000.nii.gz"), (label, f"labelsTr/{case}.nii.gz")):
            image = sitk.GetImageFromArray(array if dimensions == 2 else array[None])
            image.SetSpacing((0.5, 0.5, 4.0)[:dimensions])
            sitk.WriteImage(image, str(tmp_path / "data" / file))
    description = {
        "channel_names": {"0": "T2"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"
    }  # fmt: skip
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    dataset = open_dataset(tmp_path / "data")
    prepared = prepare(dataset, channels=["T2"], spacing=(1.0, 1.0, 4.0), folder=tmp_path / "prepared")
    (flat, flat_label), (volume, volume_label) = (prepared.load(case) for case in ("flat", "slice"))
    assert flat.shape == (1, 1, 20, 18)
    np.testing.assert_array_equal(flat, volume)
    np.testing.assert_array_equal(flat_label, volume_label)
    assert flat_label.sum() == label.sum() / 4


def test_a_view_of_a_volume_is_one_of_its_slices(tmp_path: Path) -> None:
    """A labelled one where the draw is on the foreground; over the epochs every one of them, and no other."""
    volume = np.repeat(np.arange(12, dtype=np.float32), 32 * 32).reshape(1, 12, 32, 32) + 1
    label = np.zeros((12, 32, 32), np.uint8)
    label[3:6, 14:18, 14:18] = 1
    seen = []
    for epoch in range(60):
        draw = draw_patch(STILL, seed=0, epoch=epoch, case="a", channels=1, spatial_dims=2)
        image, mask = sample_patch(volume, label, draw, patch_size=(32, 32), spacing=(1.0, 1.0), noise=0)
        assert image.shape == (1, 32, 32)
        assert int(mask.sum()) == 16
        inside = image[0, 12:20, 12:20]  # around the anchor, which lies near the middle of the view
        assert float(inside.std()) < 1e-4  # of one slice
        seen.append(round(float(inside.mean())) - 1)
    assert set(seen) == {3, 4, 5}


def test_training_on_volumes_predicts_every_slice(config: Make) -> None:
    folder = train(config(patch_size=[32, 32], max_steps=2, precision="fp32", batch_size=4))
    assert (folder / "per_case.csv").read_text(encoding="utf-8").count("ball") == 2
    predicted = load_file(folder / "predictions" / "P6.safetensors")
    assert predicted["label"].shape == (32, 32, 32)
    assert predicted["logits"].shape == (1, 32, 32, 32)


def test_weights_with_two_names_and_one_memory_can_be_saved(tmp_path: Path) -> None:
    """MDViT's position encodings belong to several of its parts."""
    shared = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "weights.safetensors", {"a": shared, "b": shared, "c": shared.T})
    found = load_file(tmp_path / "weights.safetensors")
    for name, wanted in {"a": shared, "b": shared, "c": shared.T}.items():
        np.testing.assert_array_equal(found[name], wanted.numpy())
