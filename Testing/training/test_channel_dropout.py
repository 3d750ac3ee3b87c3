"""One student for every subset of its channels: what it sees, what its teachers see, what the card says."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from TeachFormerCore.data.augmentation import AugmentationConfig
from TeachFormerCore.data.prepared import open_prepared
from TeachFormerCore.distillation.attention_similarity import AttentionSimilarity
from TeachFormerCore.distillation.distillation_task import DistillationTask
from TeachFormerCore.distillation.pixelwise_divergence import PixelwiseDivergence
from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.teacher import Teacher
from TeachFormerCore.inference.model_folder import read_card
from TeachFormerCore.networks import SegmentationNetwork
from TeachFormerCore.training.case_scores import CaseEvaluator
from TeachFormerCore.training.channel_subsets import channel_subsets
from TeachFormerCore.training.config import TrainConfig
from TeachFormerCore.training.export import export_run
from TeachFormerCore.training.train import train
from TeachFormerCore.training.views import Views

DROPPING = AugmentationConfig(channel_dropout=0.5)


class Recorder(SegmentationNetwork):
    """Keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(in_channels=2, out_channels=2, spatial_dims=3, image_size=(32, 32, 32))
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.shown: list[torch.Tensor] = []

    def maps(self, image: torch.Tensor, *, training_terms: bool = False) -> dict[str, torch.Tensor]:
        self.shown.append(image.detach().clone())
        scaled = self.scale * image
        return {"logits": scaled, "coarse": torch.nn.functional.avg_pool3d(scaled, 16), "fine": scaled}


def test_subsets_are_all_but_the_empty_one_and_the_full_set_is_last() -> None:
    assert channel_subsets(["CT", "PET"]) == {"CT": (True, False), "PET": (False, True), "CT+PET": (True, True)}
    assert list(channel_subsets(["a", "b", "c"])) == ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    assert channel_subsets(["CT"]) == {"CT": (True,)}


def test_the_student_sees_the_rest_and_the_teacher_everything() -> None:
    student, teacher = Recorder(), Recorder()
    task = DistillationTask(
        student=student, teachers=[Teacher(name="t", network=teacher)], loss=SegmentationLoss(),
        similarity=AttentionSimilarity(mode="attention"), divergence=PixelwiseDivergence(),
    )  # fmt: skip
    image, label = torch.randn(2, 2, 32, 32, 32), torch.randint(0, 2, (2, 32, 32, 32))
    kept = torch.tensor([[True, False], [True, True]])
    student.shown.clear()
    teacher.shown.clear()
    task(image, label, (), kept)
    assert torch.equal(teacher.shown[0], image)
    assert torch.equal(student.shown[0][0], torch.stack([image[0, 0], torch.zeros(32, 32, 32)]))
    assert torch.equal(student.shown[0][1], image[1])


def test_a_view_has_every_channel_and_says_which_are_kept(prepared_folder: Path) -> None:
    prepared = open_prepared(prepared_folder)
    plain, dropping = (
        Views(prepared, patch_size=(32, 32, 32), augmentation=augmentation, seed=0)
        for augmentation in (AugmentationConfig(), DROPPING)
    )
    kept = set()
    for epoch in range(12):
        view = dropping[epoch, "P0"]
        assert torch.equal(view.image, plain[epoch, "P0"].image)
        assert torch.equal(view.kept, dropping[epoch, "P0"].kept)  # it replays
        kept.add(tuple(view.kept.tolist()))
    assert kept == {(True, False), (False, True), (True, True)}


def test_a_training_with_dropout_is_scored_with_every_subset_and_the_card_says_so(
    config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    folder = train(config(augmentation=DROPPING, max_steps=2))
    with (folder / "subsets.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["channels"], row["case"]) for row in rows] == [
        (subset, case) for subset in ("CT", "PET", "CT+PET") for case in ("P6", "P7")
    ]
    with (folder / "per_case.csv").open(newline="", encoding="utf-8") as stream:
        full = [row["dice"] for row in csv.DictReader(stream)]
    assert [row["dice"] for row in rows if row["channels"] == "CT+PET"] == full
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert list(manifest["subsets"]) == ["CT", "PET", "CT+PET"]
    assert manifest["subsets"]["CT+PET"] == manifest["val_dice"]
    card = read_card(export_run(folder, output=tmp_path / "model"))
    assert [channel["optional"] for channel in card["channels"]] == [True, True]
    assert card["accuracy"]["subsets"] == manifest["subsets"]


def test_without_dropout_every_channel_is_needed(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    folder = train(config(max_steps=2))
    assert not (folder / "subsets.csv").exists()
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["subsets"] == {}
    card = read_card(export_run(folder, output=tmp_path / "model"))
    assert [channel["optional"] for channel in card["channels"]] == [False, False]
    assert "subsets" not in card["accuracy"]


@pytest.mark.parametrize("kept", [(True, False), (False, True)])
def test_a_subset_is_scored_with_the_others_at_background(
    config: Callable[..., TrainConfig], prepared_folder: Path, kept: tuple[bool, bool]
) -> None:
    prepared, network = open_prepared(prepared_folder), Recorder()
    evaluator = CaseEvaluator(
        prepared, loss=SegmentationLoss(), window=(32, 32, 32), device=torch.device("cpu"), bf16=False
    )
    evaluator.score(network, "P0", kept=kept)
    image = torch.from_numpy(prepared.load("P0")[0]).float()
    for channel, there in enumerate(kept):
        shown = network.shown[0][0, channel]
        assert torch.equal(shown, image[channel] if there else torch.zeros_like(shown))
    assert evaluator.score(network, "P0").dice == evaluator.score(network, "P0", kept=(True, True)).dice


def test_a_probability_of_one_is_refused(config: Callable[..., TrainConfig]) -> None:
    from TeachFormerCore.errors import InputError

    with pytest.raises(InputError, match="channel_dropout is a probability below 1"):
        config(augmentation=replace(DROPPING, channel_dropout=1.0))
