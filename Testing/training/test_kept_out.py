"""Cases that the whole cross-validation keeps out: scored once with the final weights, seen by nobody."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from plans import write_ct_pet_plan
from safetensors.numpy import load_file
from untrained import TEACHER, untrained_run

from TeachFormerCore.commands import main
from TeachFormerCore.data.prepared import open_prepared
from TeachFormerCore.errors import InputError
from TeachFormerCore.evaluation.overlap import dice
from TeachFormerCore.run_files import read_manifest
from TeachFormerCore.training.config import TeacherConfig, TrainConfig
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]
KEPT_OUT = ["T0", "T1", "T2"]


@pytest.fixture
def kept_out(prepared_folder: Path, tmp_path: Path) -> Path:
    """Three prepared cases of other patients."""
    folder = tmp_path / "kept_out"
    folder.mkdir()
    for number, name in enumerate(KEPT_OUT):
        shutil.copy(prepared_folder / f"P{number}.safetensors", folder / f"{name}.safetensors")
    write_ct_pet_plan(folder, patients=KEPT_OUT, label="ball", extent=(128.0, 128.0, 128.0))
    return folder


def test_they_are_scored_with_the_final_weights(config: Make, kept_out: Path) -> None:
    folder = train(config(kept_out=str(kept_out)))
    with (folder / "kept_out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == KEPT_OUT
    prepared = open_prepared(kept_out)
    for row in rows:
        predicted = load_file(folder / "predictions_kept_out" / f"{row['case']}.safetensors")["label"]
        assert float(row["dice"]) == pytest.approx(dice(predicted == 1, prepared.load(row["case"])[1] == 1), abs=1e-6)
    manifest = read_manifest(folder)
    mean = sum(float(row["dice"]) for row in rows) / len(rows)
    assert manifest["kept_out"] == {
        "preparation": prepared.plan.key(),
        "cases": 3,
        "dice": pytest.approx(mean, abs=1e-6),
    }
    seen = {patient for role in manifest["patients"].values() for patient in role}
    assert not seen & set(KEPT_OUT)


def test_without_them_nothing_is_written(config: Make) -> None:
    folder = train(config(max_steps=1))
    assert read_manifest(folder)["kept_out"] is None
    assert not (folder / "kept_out.csv").exists()


def test_a_teacher_that_saw_one_is_refused(config: Make, kept_out: Path, tmp_path: Path) -> None:
    """The teacher's own teacher was trained on T1."""
    first = TEACHER | {"run": "first", "training_patients": ["T1"], "tuning_patients": ["P1"]}
    teacher = untrained_run(config(run=str(tmp_path / "teacher")), teachers=[first])
    with pytest.raises(InputError, match="teacher first saw the patient T1 in training"):
        train(config(kept_out=str(kept_out), teachers=[TeacherConfig(run=str(teacher))]))
    assert not (tmp_path / "run").exists()


def test_a_patient_of_the_data_cannot_be_kept_out(config: Make, kept_out: Path) -> None:
    (kept_out / "T1.safetensors").rename(kept_out / "P7.safetensors")
    write_ct_pet_plan(kept_out, patients=["T0", "P7", "T2"], label="ball", extent=(128.0, 128.0, 128.0))
    with pytest.raises(InputError, match="patient P7 is among the cases kept out"):
        train(config(kept_out=str(kept_out)))


def test_other_labels_are_refused(config: Make, kept_out: Path) -> None:
    write_ct_pet_plan(kept_out, patients=KEPT_OUT, label="cube", extent=(128.0, 128.0, 128.0))
    with pytest.raises(InputError, match="both must be of one dataset"):
        train(config(kept_out=str(kept_out)))


def test_a_dataset_is_prepared_from_its_test_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's imagesTs and labelsTs, through the command and through the configuration: the same cases."""
    import json

    import numpy as np
    import SimpleITK as sitk

    from TeachFormerCore.training.datasource import kept_out_data, prepared_data

    monkeypatch.setenv("TEACHFORMER_RUNS", str(tmp_path / "runs"))
    dataset = tmp_path / "DATASET"
    for split, patients in (("Tr", ["A", "B"]), ("Ts", ["C"])):
        for folder in (f"images{split}", f"labels{split}"):
            (dataset / folder).mkdir(parents=True)
        for patient in patients:
            image = sitk.GetImageFromArray(np.linspace(-600, 400, 512).reshape(8, 8, 8).astype(np.int16))
            sitk.WriteImage(image, str(dataset / f"images{split}" / f"{patient}_0000.nii.gz"))
            label = sitk.GetImageFromArray(np.ones((8, 8, 8), np.uint8))
            sitk.WriteImage(label, str(dataset / f"labels{split}" / f"{patient}.nii.gz"))
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "GTV": 1}, "file_ending": ".nii.gz"}
    (dataset / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    config = TrainConfig(
        data=str(dataset),
        kept_out=str(dataset),
        run="run",
        network="unet",
        channels=["CT"],
        patch_size=[32, 32, 32],
        spacing=[2.0, 2.0, 2.0],
        fold="all",
        max_steps=1,
    )
    prepared = prepared_data(config)
    found = kept_out_data(config, prepared)
    assert found is not None
    assert (prepared.cases, found.cases) == (("A", "B"), ("C",))
    made = tmp_path / "made"
    wanted = ["--channels", "CT", "--spacing", "2,2,2", "--split", "Ts", "--output", str(made)]
    assert main(["data", "prepare", str(dataset), *wanted]) == 0
    assert open_prepared(made).plan == found.plan
