"""Eq. 4: the terms, their sum over teachers, what is trained and what is kept."""

import pytest
import torch

from TeachFormerCore.distillation.attention_similarity import AttentionSimilarity
from TeachFormerCore.distillation.pixelwise_divergence import PixelwiseDivergence
from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.task import DistillationTask, SegmentationTask, Teacher
from TeachFormerCore.networks import SegmentationNetwork, build_network


def network(filters: int = 2, **changes: int) -> SegmentationNetwork:
    torch.manual_seed(filters)
    sizes = {"in_channels": 2, "out_channels": 2} | changes
    return build_network(
        "h_denseformer_light", image_size=(32, 32, 32), filters=filters, transformer_depth=4, residual=True, **sizes
    )


def task(*teachers: Teacher, student: SegmentationNetwork | None = None, **weights: float) -> DistillationTask:
    return DistillationTask(
        student=student or network().eval(),
        teachers=teachers,
        loss=SegmentationLoss(),
        similarity=AttentionSimilarity(mode="balanced"),
        divergence=PixelwiseDivergence(),
        weights=weights,
    )


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 32, 32, 32, generator=generator), torch.randint(0, 2, (2, 32, 32, 32), generator=generator)


def test_a_student_that_equals_its_teacher_pays_for_its_labels_only(batch: tuple) -> None:
    student = network().eval()
    twin = network()
    twin.load_state_dict(student.state_dict())
    terms = task(Teacher(name="twin", network=twin), student=student)(*batch)
    alone = SegmentationTask(student=student, loss=SegmentationLoss())(*batch)
    assert tuple(terms) == DistillationTask.term_names
    for name in ("similarity_coarse", "similarity_fine", "divergence"):
        assert terms[name].item() == pytest.approx(0, abs=1e-5)
    for name in ("dice", "focal"):
        torch.testing.assert_close(terms[name], alone[name])


def test_teachers_add_up_with_their_weights(batch: tuple) -> None:
    first, second = network(3), network(4)
    both = task(Teacher(name="a", network=first, weight=2.0), Teacher(name="b", network=second))(*batch)
    a, b = (task(Teacher(name="x", network=one))(*batch) for one in (first, second))
    for name in ("similarity_coarse", "similarity_fine", "divergence"):
        torch.testing.assert_close(both[name], 2 * a[name] + b[name])
        assert a[name] > 1e-3


def test_weights_scale_terms_and_unknown_ones_are_refused(batch: tuple) -> None:
    teacher = Teacher(name="a", network=network(3))
    plain, weighted = task(teacher)(*batch), task(teacher, divergence=5.0)(*batch)
    torch.testing.assert_close(weighted["divergence"], 5 * plain["divergence"])
    with pytest.raises(ValueError, match="no term kl"):
        task(teacher, kl=1.0)


def test_only_the_student_learns_and_is_kept(batch: tuple) -> None:
    teacher = network(3)
    made = task(Teacher(name="a", network=teacher), student=network().train())
    made.train()
    assert made.student.training
    assert not teacher.training
    torch.stack(list(made(*batch).values())).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in made.student.parameters())
    students = {f"student.{name}" for name in made.student.state_dict()}
    assert set(made.state_dict()) == students
    assert {id(p) for p in made.parameters()} == {id(p) for p in made.student.parameters()}


def test_teachers_follow_the_students_device_and_type() -> None:
    teacher = network(3)
    task(Teacher(name="a", network=teacher)).to(torch.float64)
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("teachers", "reason"),
    [
        ([], "at least one teacher"),
        ([{"out_channels": 3}], "teacher t has out_channels 3, the student has 2"),
        ([{"in_channels": 1}], "teacher t has in_channels 1"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(teachers: list[dict[str, int]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        task(*(Teacher(name="t", network=network(3, **changes)) for changes in teachers))
    with pytest.raises(ValueError, match="must be positive"):
        task(Teacher(name="t", network=network(3), weight=0.0))
