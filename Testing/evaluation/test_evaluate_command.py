"""``teachformer evaluate`` on a small dataset, with a predictor whose masks are known."""

import argparse
import csv
import json
import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.commands import evaluate
from TeachFormerCore.data.image import image_like
from TeachFormerCore.errors import InputError, MissingDependencyError
from TeachFormerCore.inference.model_folder import WEIGHTS_FILE
from TeachFormerCore.paths import SHIPPED_MODELS

SPACING = (2.0, 2.0, 3.0)  # x, y, z
SHAPE = (12, 20, 24)
CHANNELS = [
    {"name": "CT", "modality": "CT", "normalisation": {"kind": "clip_and_scale", "low": -200, "high": 300}},
    {"name": "PET", "modality": "PET", "normalisation": {"kind": "scale_suv", "high": 20, "divisor": 5}},
]


def image(array: np.ndarray, spacing=SPACING, origin=(10.0, -20.0, 30.0)) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.SetSpacing(spacing)
    result.SetOrigin(origin)
    return result


def lesion(start: int = 6) -> np.ndarray:
    """A box of 4 x 8 x 10 voxels."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:8, 6:14, start : start + 10] = 1
    return mask


def write_case(folder: Path, name: str, mask: np.ndarray, split: str = "Tr", channels: int = 3) -> None:
    """CT with the lesion at 50 HU and air around, PET with SUV 4 two voxels further right, and an MR nobody needs."""
    (folder / f"images{split}").mkdir(exist_ok=True)
    (folder / f"labels{split}").mkdir(exist_ok=True)
    ct = np.where(mask, 50, -1000).astype(np.int16)
    pet = (4 * np.roll(mask, 2, axis=2)).astype(np.float32)
    ct[0, 0, 0], pet[0, 0, 0] = -500, 1  # an image of one value would be refused
    for number, array in enumerate((ct, pet, ct)[:channels]):
        sitk.WriteImage(image(array), str(folder / f"images{split}" / f"{name}_{number:04d}.nii.gz"))
    sitk.WriteImage(image(mask), str(folder / f"labels{split}" / f"{name}.nii.gz"))


@pytest.fixture
def folder(tmp_path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    describe(data)
    for name, start in (("P1_a", 6), ("P2_a", 7), ("P3_a", 8)):
        write_case(data, name, lesion(start))
    return data


def describe(data: Path, **changes) -> None:
    description = {
        "name": "Boxes",
        "channel_names": {"0": "ct", "1": "FDG-PET", "2": "MR_T1"},
        "labels": {"background": 0, "tumour": 1},
        "patient_pattern": r"(P\d+)_",
        "file_ending": ".nii.gz",
    }
    (data / "dataset.json").write_text(json.dumps(description | changes), encoding="utf-8")


class FakePredictor:
    """Finds what is above 0 HU, exactly."""

    card: ClassVar[dict] = {
        "name": "S1",
        "channels": CHANNELS,
        "labels": [{"value": 1, "name": "GTV"}],
        "files": {"weights.safetensors": "0" * 64},
        "training": {"dataset": "Boxes", "fold": 0, "training_patients": ["P1"], "tuning_patients": ["P3"]},
    }
    device = "cpu"
    made: ClassVar[dict] = {}

    def __init__(self, model=None, *, device="auto", runtime="auto"):
        type(self).made = {"model": model, "device": device, "runtime": runtime}

    def run(self, images, *, region=None, progress=None):
        reference = images["CT"]
        return types.SimpleNamespace(label=self.label(reference), notices=["resampled"])

    def label(self, reference):
        return image_like((sitk.GetArrayFromImage(reference) > 0).astype(np.uint8), reference)


@pytest.fixture
def fake(monkeypatch):
    """Puts a predictor in the real one's place; more attributes replace FakePredictor's."""

    def install(**attributes):
        predictor = type("Fake", (FakePredictor,), attributes)
        module = types.SimpleNamespace(Predictor=predictor)
        monkeypatch.setitem(sys.modules, "TeachFormerCore.inference.predictor", module)
        return predictor

    install()
    return install


def run(*words) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return evaluate.run(parser.parse_args([str(word) for word in words]))


def summary_of(capsys, *words, code: int = 0) -> dict:
    assert run(*words, "--json") == code
    return json.loads(capsys.readouterr().out)


def test_files_and_numbers(folder, fake, tmp_path, capsys):
    output = tmp_path / "new" / "folder"
    assert run("--model", "S1", "--data", folder, "--output", output, "--device", "cpu", "--runtime", "torch") == 0
    printed = capsys.readouterr()
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert (summary["model"], summary["dataset"], summary["split"]) == ("S1", "Boxes", "Tr")
    assert (summary["weights_sha256"], summary["device"]) == ("0" * 64, "cpu")
    assert 0 <= summary["seconds_per_case"] < 5
    assert summary["cases"][0] == {
        "case": "P1_a",
        "label": "GTV",
        "dice": 1.0,
        "iou": 1.0,
        "hd95_mm": 0.0,
        "surface_dice": 1.0,
        "volume_error_ml": 0.0,
        "missed": False,
        "seen": True,
    }
    assert [row["seen"] for row in summary["cases"]] == [True, False, True]
    assert summary["baselines"]["suv_2_5"]["dice"] == pytest.approx(0.8)  # 8 of 10 voxels
    assert summary["baselines"]["suv_2_5"]["hd95_mm"] == pytest.approx(4)
    assert summary["baselines"]["predict_nothing"]["dice"] == 0
    assert summary["baselines"]["predict_nothing"]["volume_error_ml"] == pytest.approx(-4 * 8 * 10 * 12 / 1000)
    assert 0.2 < summary["baselines"]["centred_ellipsoid"]["dice"] < 0.9
    with (output / "per_case.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["case"], row["dice"]) for row in csv.DictReader(file)] == [
            (name, "1.0000") for name in ("P1_a", "P2_a", "P3_a")
        ]
    assert "S1" in printed.out
    assert "centred ellipsoid" in printed.out
    assert "SUV > 2.5" in printed.out
    warnings = [line for line in printed.err.splitlines() if "training cases" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: 2 of 3 cases")
    assert "resampled (3 of 3 cases)" in printed.err


def test_options_reach_the_predictor(folder, fake):
    predictor = fake()
    run("--model", "S1", "--data", folder, "--device", "cpu", "--runtime", "torch")
    assert predictor.made == {"model": "S1", "device": "cpu", "runtime": "torch"}
    run("--data", folder)
    assert predictor.made == {"model": None, "device": "auto", "runtime": "auto"}


def test_missed_and_empty(folder, fake, capsys):
    write_case(folder, "P4_a", np.zeros(SHAPE, np.uint8))
    fake(label=lambda self, reference: image_like(np.zeros(SHAPE, np.uint8), reference))
    summary = summary_of(capsys, "--data", folder)
    assert summary["empty_cases"] == 1
    assert summary["missed_cases"] == 3
    assert summary["mean"] == summary["baselines"]["predict_nothing"]
    assert summary["mean"]["dice"] == 0
    assert summary["mean"]["hd95_mm"] == pytest.approx((36**2 + 40**2 + 48**2) ** 0.5)
    assert summary["cases"][3]["dice"] is None


def test_a_label_on_another_grid_is_scored_there(folder, fake, capsys):
    # A finer grid that starts elsewhere: the prediction comes to the label, not the label to the prediction.
    fine = sitk.Resample(
        image(lesion(7)), (40, 36, 34), sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor,
        (14.5, -18.5, 31.0), (1.0, 1.0, 1.0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 0, sitk.sitkUInt8,
    )  # fmt: skip
    sitk.WriteImage(fine, str(folder / "labelsTr" / "P2_a.nii.gz"))
    fake(
        label=lambda self, reference: FakePredictor.label(self, image(np.roll(sitk.GetArrayFromImage(reference), 1, 2)))
    )
    row = summary_of(capsys, "--data", folder)["cases"][1]
    assert row["case"] == "P2_a"
    assert row["dice"] == pytest.approx(0.9)
    assert row["hd95_mm"] == pytest.approx(2)
    assert row["volume_error_ml"] == pytest.approx(0, abs=1e-9)


def test_several_labels(folder, fake, capsys):
    describe(folder, labels={"background": 0, "left": 1, "right": 2})
    names = [{"value": 1, "name": "left"}, {"value": 2, "name": "right"}, {"value": 3, "name": "other"}]
    fake(card=FakePredictor.card | {"labels": names})
    two = lesion(6)
    two[:, :, 12:][two[:, :, 12:] == 1] = 2
    write_case(folder, "P1_a", two)
    summary = summary_of(capsys, "--data", folder)
    assert [(row["case"], row["label"]) for row in summary["cases"]][:2] == [("P1_a", "left"), ("P1_a", "right")]
    assert summary["cases"][0]["dice"] == pytest.approx(2 * 6 / 16)
    assert summary["cases"][1]["missed"] is True
    assert set(summary["mean_per_label"]) == {"left", "right"}
    assert any("'other' is not scored" in notice for notice in summary["notices"])


def test_one_fold(folder, fake, tmp_path, capsys):
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps([{"train": ["P1_a"], "val": ["P3_a", "P2_a"]}, {"train": ["P2_a"], "val": ["P9_a"]}]))
    summary = summary_of(capsys, "--data", folder, "--splits", splits, "--fold", 0)
    assert [row["case"] for row in summary["cases"]] == ["P2_a", "P3_a"]
    for words, message in (
        (("--splits", splits), "belong together"),
        (("--fold", 0), "belong together"),
        (("--splits", splits, "--fold", 2), "no fold 2"),
        (("--splits", splits, "--fold", 1), "'P9_a'"),
        (("--splits", tmp_path / "none.json", "--fold", 0), "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            run("--data", folder, *words)


def test_ts_reads_the_test_cases(folder, fake, capsys):
    write_case(folder, "P7_a", lesion(), split="Ts")
    summary = summary_of(capsys, "--data", folder, "--split", "Ts")
    assert (summary["split"], [row["case"] for row in summary["cases"]]) == ("Ts", ["P7_a"])


def test_a_failing_case_is_named_and_the_others_go_on(folder, fake, tmp_path, capsys):
    def fails_for_p2(self, reference):
        if sitk.GetArrayFromImage(reference)[5, 10, 6] < 0 < sitk.GetArrayFromImage(reference)[5, 10, 16]:
            raise RuntimeError("out of luck")
        return FakePredictor.label(self, reference)

    fake(label=fails_for_p2)
    write_case(folder, "P3_a", lesion(6))
    assert run("--data", folder, "--output", tmp_path / "out") == 1
    assert "P2_a failed: out of luck" in capsys.readouterr().err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert [row["case"] for row in summary["cases"]] == ["P1_a", "P3_a"]
    assert summary["failed"] == [{"case": "P2_a", "error": "out of luck"}]


def test_every_case_failing_still_answers(folder, fake, capsys):
    fake(label=lambda self, reference: 1 / 0)
    summary = summary_of(capsys, "--data", folder, code=1)
    assert summary["mean"]["dice"] is None
    assert len(summary["failed"]) == 3


def test_a_missing_package_is_no_failed_case(folder, fake):
    def missing(self, reference):
        raise MissingDependencyError("openvino")

    fake(label=missing)
    with pytest.raises(MissingDependencyError):
        run("--data", folder)


def test_without_pet_there_is_no_suv_baseline(folder, fake, capsys):
    fake(card=FakePredictor.card | {"channels": CHANNELS[:1]})
    summary = summary_of(capsys, "--data", folder)
    assert summary["baselines"]["suv_2_5"] is None
    assert any("suv_2_5" in notice for notice in summary["notices"])


def test_what_is_refused_before_the_first_prediction(folder, fake, tmp_path):
    fake(run=None)  # would end in another error
    with pytest.raises(InputError, match="lies in the data folder"):
        run("--data", folder, "--output", folder / "results")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be created"):
        run("--data", folder, "--output", tmp_path / "file" / "results")
    describe(folder, labels={"background": 0, "GTV": 2})
    with pytest.raises(InputError, match="'GTV' is 1 in the model S1 and 2 in"):
        run("--data", folder)
    describe(folder)

    bad = lesion(9)
    bad[0, 0, 0] = 7
    sitk.WriteImage(image(bad), str(folder / "labelsTr" / "P3_a.nii.gz"))
    with pytest.raises(InputError, match=r"P3_a\.nii\.gz holds the value 7"):
        run("--data", folder)
    write_case(folder, "P3_a", lesion())

    (folder / "imagesTr" / "P2_a_0001.nii.gz").unlink()
    with pytest.raises(InputError, match="'P2_a' lacks the channel PET"):
        run("--data", folder)
    (folder / "labelsTr" / "P1_a.nii.gz").unlink()
    with pytest.raises(InputError, match="'P1_a' has no label file"):
        run("--data", folder)


def test_a_dataset_without_a_needed_channel_is_refused(folder, fake):
    describe(folder, channel_names={"0": "CT", "1": "T2", "2": "MR_T1"})
    with pytest.raises(InputError, match="needs the channel PET"):
        run("--data", folder)
    describe(folder, channel_names={"0": "CT", "1": "PET 1", "2": "PET 2"})
    with pytest.raises(InputError, match="tells it apart"):
        run("--data", folder)


def test_channels_are_matched_in_the_models_order():
    wanted = [*CHANNELS[::-1], {"name": "T2", "modality": "MR", "normalisation": {}, "optional": True}]
    matched = evaluate.match_channels(wanted, types.SimpleNamespace(channels=("suv", "Ct"), folder="D"))
    assert list(matched.items()) == [("PET", "suv"), ("CT", "Ct")]
    matched = evaluate.match_channels(wanted, types.SimpleNamespace(channels=("CT", "T1", "PET"), folder="D"))
    assert list(matched.items()) == [("PET", "PET"), ("CT", "CT"), ("T2", "T1")]


def test_a_label_beside_its_image_fails_the_case(folder, fake, capsys):
    sitk.WriteImage(image(lesion(), origin=(500.0, 0.0, 0.0)), str(folder / "labelsTr" / "P2_a.nii.gz"))
    summary = summary_of(capsys, "--data", folder, code=1)
    assert "do not overlap" in summary["failed"][0]["error"]


def test_the_program_with_a_real_model(folder, tiny_model, cli, tmp_path):
    """Random weights: the numbers mean nothing, but everything from the files to the files is real."""
    output = tmp_path / "out"
    answer = cli("evaluate", "--model", tiny_model, "--data", folder, "--output", output, "--device", "cpu")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("Boxes, split Tr: mean over 3 cases")
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert (summary["model"], summary["failed"]) == ("tiny", [])
    assert (
        summary["weights_sha256"]
        == json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))["files"][WEIGHTS_FILE]
    )
    assert len((output / "per_case.csv").read_text(encoding="utf-8").splitlines()) == 4
    assert sorted(file.name for file in output.iterdir()) == ["per_case.csv", "summary.json"]

    (folder / "labelsTr" / "P2_a.nii.gz").unlink()
    answer = cli("evaluate", "--model", tiny_model, "--data", folder, "--json")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "'P2_a' has no label file" in answer.stderr


@pytest.mark.skipif(not list(SHIPPED_MODELS.glob("*/model.json")), reason="no model ships yet")
def test_the_shipped_model_on_two_cases(sts, cli, tmp_path):
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps([{"train": ["STS_001"], "val": ["STS_002", "STS_014"]}]))
    answer = cli("evaluate", "--data", sts, "--splits", splits, "--fold", 0, "--json", "--output", tmp_path / "out")
    assert answer.returncode == 0, answer.stderr
    summary = json.loads(answer.stdout)
    assert [row["case"] for row in summary["cases"]] == ["STS_002", "STS_014"]
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert all(0.3 < row["dice"] <= 1 for row in summary["cases"])
    assert ("training cases" in answer.stderr) == any(row["seen"] for row in summary["cases"])
