"""Preparation: what is stored is the image on the patient's axes, once, whole or not at all."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.data import preparation
from TeachFormerCore.data.channels import Channel, default_normalisation
from TeachFormerCore.data.dataset import Dataset, open_dataset
from TeachFormerCore.data.grid import Grid, patient_grid
from TeachFormerCore.data.preparation import plan_preparation, prepare, to_model_grid
from TeachFormerCore.data.prepared import open_prepared, write_plan
from TeachFormerCore.errors import InputError
from TeachFormerCore.files import ABANDONED_S

SPACING = (4.0, 4.0, 4.0)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two cases, the second the first one with its axes flipped and permuted."""
    folder = tmp_path / "data"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    label = np.zeros((24, 30, 36), np.uint8)
    label[8:16, 10:20, 12:24] = 1
    arrays = {
        "imagesTr/A_0000": np.where(label, 60, -1000 + random.normal(0, 300, label.shape)).astype(np.float32),
        "imagesTr/A_0001": (label * 8 + random.uniform(0, 1, label.shape)).astype(np.float32),
        "labelsTr/A": label,
    }
    for name, array in arrays.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((2.0, 2.0, 3.0))
        image.SetOrigin((-50.0, 10.0, 300.0))
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
        turned = sitk.DICOMOrient(image, "SRA")
        sitk.WriteImage(turned, str(folder / f"{name.replace('/A', '/B')}.nii.gz"))
    description = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "GTV": 1}, "name": "two"}
    (folder / "dataset.json").write_text(json.dumps(description))
    return open_dataset(folder)


def test_arrays_are_normalised_aligned_and_independent_of_the_axes(dataset: Dataset, tmp_path: Path) -> None:
    prepared = prepare(dataset, channels=["ct", "PET"], spacing=SPACING, folder=tmp_path / "out")
    image, label = prepared.load("A")
    assert image.dtype == np.float16
    assert label.dtype == np.uint8
    assert image.shape == (2, *label.shape) == (2, 18, 15, 18)
    assert image[0].min() == 0
    assert image[0].max() <= 1
    inside = label.astype(bool)
    assert image[1][inside].mean() > 1.3 > 0.4 > image[1][~inside].mean()
    # 12 x 10 x 8 voxels of 2 x 2 x 3 mm.
    assert label.sum() * 64 == pytest.approx(12 * 10 * 8 * 12, rel=0.08)
    other_image, other_label = prepared.load("B")
    np.testing.assert_array_equal(image, other_image)
    np.testing.assert_array_equal(label, other_label)
    assert prepared.fields_of_view["B"] == pytest.approx((72.0, 60.0, 72.0))


def test_twice_gives_the_same_arrays(dataset: Dataset, tmp_path: Path) -> None:
    """Regression: views of temporary images once read freed memory, in some cases of some runs."""
    first = prepare(dataset, channels=["CT", "PET"], spacing=SPACING, folder=tmp_path / "1")
    for number in range(2, 6):
        again = prepare(dataset, channels=["CT", "PET"], spacing=SPACING, folder=tmp_path / str(number))
        for case in first.cases:
            for one, other in zip(first.load(case), again.load(case), strict=True):
                np.testing.assert_array_equal(one, other)


def test_the_key_follows_the_content(dataset: Dataset) -> None:
    plan = plan_preparation(dataset, channels=["CT", "PET"], spacing=SPACING)
    assert plan.key() == plan_preparation(dataset, channels=["CT", "PET"], spacing=SPACING).key()
    assert plan.key() != plan_preparation(dataset, channels=["PET", "CT"], spacing=SPACING).key()
    assert plan.key() != plan_preparation(dataset, channels=["CT", "PET"], spacing=(3.0, 4.0, 4.0)).key()
    label = dataset.cases[0].label
    assert label is not None
    changed = sitk.ReadImage(str(label))
    changed[0, 0, 0] = 1
    sitk.WriteImage(changed, str(label))
    assert plan.key() != plan_preparation(dataset, channels=["CT", "PET"], spacing=SPACING).key()


def test_a_second_run_finds_the_first(dataset: Dataset) -> None:
    first = prepare(dataset, channels=["CT"], spacing=SPACING)
    before = first.folder.stat().st_mtime_ns
    assert prepare(dataset, channels=["CT"], spacing=SPACING).folder == first.folder
    assert first.folder.stat().st_mtime_ns == before


def test_jobs_that_prepare_at_once_share_one_folder(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: of the jobs that a queue starts together, all but the first to end failed."""
    together = threading.Barrier(3)

    def write_plan_together(*arguments: Any) -> None:
        write_plan(*arguments)
        together.wait(timeout=60)

    monkeypatch.setattr(preparation, "write_plan", write_plan_together)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(prepare, dataset, channels=["CT"], spacing=SPACING) for _ in range(3)]
        prepared = [job.result() for job in jobs]
    (folder,) = {one.folder for one in prepared}
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
    assert prepared[0].load("A")[0].shape == prepared[2].load("A")[0].shape


def test_what_a_killed_preparation_left_is_swept(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    old, new, other = (tmp_path / name for name in (".out-abandoned", ".out-building", ".else-abandoned"))
    for left in (old, new, other):
        left.mkdir()
        (left / "A.safetensors").write_bytes(b"half")
    past = time.time() - ABANDONED_S - 1
    for left in (old, other):
        os.utime(left, (past, past))
    prepare(dataset, channels=["CT"], spacing=SPACING, folder=folder)
    assert [left.exists() for left in (old, new, other)] == [False, True, True]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda dataset: dataset.cases[1].images["PET"].unlink(), "does not exist"),
        (lambda dataset: dataset.cases[1].label.unlink(), "does not exist"),
        (lambda dataset: dataset.cases[1].images["PET"].write_bytes(b""), "empty"),
        (lambda dataset: sitk.WriteImage(2 * sitk.ReadImage(str(dataset.cases[1].label)), str(dataset.cases[1].label)),
         "label values"),
        (lambda dataset: sitk.WriteImage(5000 * sitk.ReadImage(str(dataset.cases[1].images["PET"])),
                                         str(dataset.cases[1].images["PET"])), "Bq/mL"),
    ],
)  # fmt: skip
def test_a_broken_case_stops_it_and_leaves_nothing(dataset: Dataset, tmp_path: Path, spoil, reason: str) -> None:
    spoil(dataset)
    with pytest.raises(InputError, match=reason):
        prepare(dataset, channels=["CT", "PET"], spacing=SPACING, folder=tmp_path / "made" / "out")
    assert not (tmp_path / "made").exists() or list((tmp_path / "made").iterdir()) == []


def test_unknown_channels_and_foreign_folders_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no channel MR: it has CT, PET"):
        prepare(dataset, channels=["CT", "MR"], spacing=SPACING, folder=tmp_path / "out")
    with pytest.raises(InputError, match="does not hold this preparation"):
        prepare(dataset, channels=["CT"], spacing=SPACING, folder=tmp_path)
    with pytest.raises(InputError, match="not the plan of a prepared dataset"):
        open_prepared(tmp_path)


def test_an_absent_channel_and_what_lies_outside_are_background() -> None:
    image = sitk.Image(10, 10, 10, sitk.sitkFloat32) + 50.0
    channels = [Channel(name, name, default_normalisation(name), optional=True) for name in ("CT", "PET")]
    grid = patient_grid(Grid.of(image), (1.0, 1.0, 1.0))
    larger = Grid(size=(14, 10, 10), spacing=grid.spacing, origin=grid.origin, direction=grid.direction)
    array = to_model_grid({"CT": image}, channels, larger)
    assert array.shape == (2, 10, 10, 14)
    assert array[1].max() == 0
    np.testing.assert_allclose(array[0, :, :, :10], 0.5)
    assert array[0, :, :, 10:].max() == 0
