"""The loss audit against autograd and closed forms, on a run in each of its states, and as a user sees it."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml

from TeachFormerCore.commands import main
from TeachFormerCore.distillation.attention_similarity import AttentionSimilarity
from TeachFormerCore.distillation.distillation_task import DistillationTask
from TeachFormerCore.distillation.pixelwise_divergence import PixelwiseDivergence
from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.teacher import Teacher
from TeachFormerCore.errors import InputError
from TeachFormerCore.networks import SegmentationNetwork, build_network
from TeachFormerCore.training.audit import audit, measure
from TeachFormerCore.training.config import DistillationConfig, TeacherConfig, TrainConfig
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]
TAUGHT = ("similarity_coarse", "similarity_fine", "divergence")


def network(filters: int) -> SegmentationNetwork:
    torch.manual_seed(filters)
    arguments = {"in_channels": 2, "out_channels": 2, "image_size": (32, 32, 32), "filters": filters}
    return build_network("h_denseformer_light", transformer_depth=4, residual=True, **arguments)


def task(*, balanced: bool = False, **weights: float) -> DistillationTask:
    student = network(2).train()
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # a second forward is the same
    return DistillationTask(
        student=student,
        teachers=[Teacher(name="a", network=network(3), weight=2.0), Teacher(name="b", network=network(4))],
        loss=SegmentationLoss(),
        similarity=AttentionSimilarity(mode="balanced"),
        divergence=PixelwiseDivergence(),
        weights=weights,
        balanced=balanced,
    ).train()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 32, 32, 32, generator=generator), torch.randint(0, 2, (2, 32, 32, 32), generator=generator)


def test_the_figures_are_those_of_the_training(batch: tuple) -> None:
    """Losses add up to the training's, and norm and cosine are those of plain backward passes."""
    made = task(divergence=0.5)
    rows = {(row.term, row.teacher): row for row in measure(made, *batch)}
    terms = made(*batch)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        made.student.zero_grad()
        loss.backward(retain_graph=True)
        return torch.cat(
            [p.grad.flatten() if p.grad is not None else 0 * p.flatten() for p in made.student.parameters()]
        )

    labels = gradient(terms["dice"] + terms["focal"])
    assert rows["Eq. 3", None].gradient_norm == pytest.approx(labels.norm().item(), rel=1e-4)
    for name in TAUGHT:
        row, expected = rows[name, "all"], gradient(terms[name])
        assert row.loss == pytest.approx(terms[name].item(), rel=1e-5)
        assert row.gradient_norm == pytest.approx(expected.norm().item(), rel=1e-4)
        assert row.gradient_ratio == pytest.approx((expected.norm() / labels.norm()).item(), rel=1e-4)
        assert row.cosine == pytest.approx(torch.cosine_similarity(expected, labels, dim=0).item(), abs=1e-4)
    assert rows["Eq. 4", None].loss == pytest.approx(sum(terms.values()).item(), rel=1e-5)
    total = gradient(sum(terms.values()))
    assert rows["Eq. 4", None].gradient_norm == pytest.approx(total.norm().item(), rel=1e-4)
    assert rows["divergence", "a"].weight == 1.0  # 0.5 of the term, 2 of the teacher
    assert rows["divergence", "a"].loss == pytest.approx(rows["divergence", "a"].size)


def test_eq_3_pulls_with_itself_and_a_term_of_weight_0_is_not_there(batch: tuple) -> None:
    rows = {(row.term, row.teacher): row for row in measure(task(similarity_fine=0.0), *batch)}
    assert rows["Eq. 3", None].cosine == pytest.approx(1)
    assert rows["Eq. 3", None].gradient_ratio == 1
    assert ("similarity_fine", "a") not in rows


def test_balanced_terms_are_audited_with_their_balance(batch: tuple) -> None:
    """At the first step the balance makes each term's gradient, over all teachers, as long as Eq. 3's."""
    rows = {(row.term, row.teacher): row for row in measure(task(balanced=True), *batch)}
    for name in TAUGHT:
        assert rows[name, "all"].gradient_ratio == pytest.approx(1, rel=1e-3)


@pytest.fixture
def student(config: Make, tmp_path: Path) -> TrainConfig:
    """A student of a finished run of fold 0."""
    arguments = {"filters": 4, "transformer_depth": 4}
    teacher = train(config(run=str(tmp_path / "teacher"), network_arguments=arguments, max_steps=2))
    return config(run=str(tmp_path / "student"), teachers=[TeacherConfig(run=str(teacher))], max_steps=4)


def content(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_it_looks_at_the_state_of_the_run_and_writes_nothing(student: TrainConfig) -> None:
    before = audit(student)
    assert (before.state, before.step) == ("its initial weights", 0)
    assert not Path(student.run).exists()
    assert audit(student) == before
    folder = train(student)
    files = content(folder)
    after = audit(student, batches=2)
    assert (after.state, after.step, after.batches) == ("its final weights", 4, 2)
    assert after.rows[0].size != before.rows[0].size
    (folder / "manifest.json").unlink()
    assert audit(student).state == "the weights of its checkpoint"
    del files[str(folder / "manifest.json")]
    assert content(folder) == files


def test_the_first_steps_figures_are_those_of_metrics_csv(config: Make, student: TrainConfig) -> None:
    """One epoch of one step, whose mean is that step."""
    from csv import DictReader

    one = replace(student, max_steps=1, batch_size=5)
    expected = {row.term: row.loss for row in audit(one).rows}
    with (train(one) / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        found = next(DictReader(stream))
    for name in ("dice", "focal", *TAUGHT):
        assert float(found[f"train_{name}"]) == pytest.approx(expected[name], rel=1e-4)


def test_other_terms_may_be_audited_but_not_another_network(student: TrainConfig) -> None:
    train(student)
    projected = audit(replace(student, distillation=DistillationConfig(mode="projected")))
    assert projected.state == "its final weights"
    with pytest.raises(InputError, match="run of another network"):
        audit(replace(student, network_arguments={"filters": 3, "transformer_depth": 4}))
    with pytest.raises(InputError, match="at least one batch"):
        audit(student, batches=0)


def test_the_command_prints_a_table_or_an_object(
    student: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(asdict(student)), encoding="utf-8")
    assert main(["distill", "--config", str(file), "--audit"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line]
    for name in ("dice", "focal", *TAUGHT):
        assert names.count(name) == 1
    rows = [line for line in lines if line.startswith(("dice", "focal", "similarity", "divergence", "Eq."))]
    assert len({len(row) for row in rows}) == 1, "the columns are not aligned"

    assert main(["distill", "--config", str(file), "--audit", "--json", "--batches", "2", "--seed", "3"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["batches"] == 2
    assert [row["term"] for row in made["rows"]] == ["dice", "focal", "Eq. 3", *TAUGHT, "Eq. 4"]
    assert main(["distill", "--config", str(file), "--json"]) == 2
    assert "belong to --audit" in capsys.readouterr().err


def test_the_command_keeps_the_audit_of_a_run_for_the_report(
    student: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its folder, and only what was measured with its own configuration."""
    file, kept = tmp_path / "config.yaml", Path(student.run) / "audit.json"
    file.write_text(yaml.safe_dump(asdict(student)), encoding="utf-8")
    assert main(["distill", "--config", str(file), "--audit"]) == 0
    assert "not kept for the report" in capsys.readouterr().err
    assert not kept.parent.exists()
    train(student)
    assert main(["distill", "--config", str(file), "--audit", "--seed", "3"]) == 0
    assert "another configuration (different: seed)" in capsys.readouterr().err
    assert not kept.exists()
    assert main(["distill", "--config", str(file), "--audit", "--json"]) == 0
    told = capsys.readouterr()
    assert f"kept for the report in {kept}" in told.err
    content = json.loads(kept.read_text(encoding="utf-8"))
    assert content == json.loads(told.out)
    assert content["state"] == "its final weights"
