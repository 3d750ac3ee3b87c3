"""A tiny labelled dataset, made by hand."""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

SHAPE = (6, 5, 4)  # z, y, x
SPACING = (2.0, 3.0, 4.0)  # x, y, z: a voxel of 24 mm3

MakeDataset = Callable[..., Path]


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Writes an nnU-Net raw folder with CT and PET: ``make({"a": 3})`` is one case with a lesion of 3 voxels."""

    def make(lesions: Mapping[str, int], shape: tuple[int, int, int] = SHAPE, **description: object) -> Path:
        folder = tmp_path / "data set"
        (folder / "imagesTr").mkdir(parents=True)
        (folder / "labelsTr").mkdir()
        content = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "GTV": 1}, **description}
        (folder / "dataset.json").write_text(json.dumps(content))
        for case, voxels in lesions.items():
            random = np.random.default_rng(zlib.crc32(case.encode()))
            label = np.zeros(shape, np.uint8)
            label.flat[:voxels] = 1
            arrays = {
                f"imagesTr/{case}_0000": random.integers(-1000, 1000, shape).astype(np.int16),
                f"imagesTr/{case}_0001": random.random(shape, dtype=np.float32),
                f"labelsTr/{case}": label,
            }
            for name, array in arrays.items():
                image = sitk.GetImageFromArray(array)
                image.SetSpacing(SPACING)
                sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
        return folder

    return make
