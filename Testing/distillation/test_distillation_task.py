"""Eq. 4: the terms, their sum over teachers, who teaches in a step, what is trained and what is kept."""

from typing import Any

import pytest
import torch

from TeachFormerCore.distillation.attention_similarity import AttentionSimilarity
from TeachFormerCore.distillation.distillation_task import DistillationTask
from TeachFormerCore.distillation.pixelwise_divergence import PixelwiseDivergence
from TeachFormerCore.distillation.segmentation_loss import SegmentationLoss
from TeachFormerCore.distillation.task import SegmentationTask
from TeachFormerCore.distillation.teacher import Teacher, TeacherMaps
from TeachFormerCore.networks import SegmentationNetwork, build_network


def network(filters: int = 2, **changes: int) -> SegmentationNetwork:
    torch.manual_seed(filters)
    sizes = {"in_channels": 2, "out_channels": 2} | changes
    return build_network(
        "h_denseformer_light", image_size=(32, 32, 32), filters=filters, transformer_depth=4, residual=True, **sizes
    )


def task(
    *teachers: Teacher,
    student: SegmentationNetwork | None = None,
    mode: str = "balanced",
    options: dict[str, Any] | None = None,
    **weights: float,
) -> DistillationTask:
    torch.manual_seed(0)
    return DistillationTask(
        student=student or network().eval(),
        teachers=teachers,
        loss=SegmentationLoss(),
        similarity=AttentionSimilarity(mode=mode),
        divergence=PixelwiseDivergence(),
        weights=weights,
        **(options or {}),
    )


TAUGHT = ("similarity_coarse", "similarity_fine", "divergence")
MODES = ("paper", "attention", "projected")


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
    assert tuple(terms) == ("dice", "focal", *TAUGHT)
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
    with pytest.raises(ValueError, match="weight of divergence must not be negative"):
        task(teacher, divergence=-1.0)


def test_a_term_of_weight_0_is_not_computed(batch: tuple) -> None:
    made = task(Teacher(name="a", network=network(3)), mode="projected", similarity_fine=0.0)
    assert made.term_names == tuple(made(*batch)) == ("dice", "focal", "similarity_coarse", "divergence")
    assert set(made.projections) == {"similarity_coarse_0"}
    with pytest.raises(ValueError, match="train the student without teachers"):
        task(Teacher(name="a", network=network(3)), **dict.fromkeys(TAUGHT, 0.0))


def targets_of(made: DistillationTask, image: torch.Tensor) -> list[TeacherMaps]:
    """What a cache would bring."""
    student = made.student.forward_with_attention(image)
    kept = []
    for teacher in made.teachers:
        logits, coarse, fine = teacher.maps(image)
        target = made.similarity.target
        kept.append(TeacherMaps(logits, target(coarse, student[1].shape[1]), target(fine, student[2].shape[1])))
    return kept


@pytest.mark.parametrize("mode", MODES)
def test_targets_with_the_batch_give_the_terms_of_asking(batch: tuple, mode: str) -> None:
    """To the last bit, and no teacher is asked."""
    made = task(Teacher(name="a", network=network(3), weight=2.0), Teacher(name="b", network=network(4)), mode=mode)
    online, targets = made(*batch), targets_of(made, batch[0])
    for teacher in made.teachers:
        teacher.network.forward_with_attention = None  # type: ignore[method-assign,assignment]
    cached = made(*batch, targets)
    assert all(torch.equal(term, cached[name]) for name, term in online.items())
    with pytest.raises(ValueError, match="maps of 1 teachers, there are 2"):
        made(*batch, targets[:1])


def test_the_student_alone_misses_channels(batch: tuple) -> None:
    """The teachers see the whole image; a batch of which all is kept is as ever."""
    image, label = batch
    kept = torch.tensor([[True, False], [True, True]])
    seen = image.clone()
    seen[0, 1] = 0
    made = task(Teacher(name="a", network=network(3)))
    expected = made(seen, label, targets_of(made, image))
    for name, term in made(image, label, None, kept).items():
        torch.testing.assert_close(term, expected[name])
    whole = made(*batch, (), torch.ones(2, 2, dtype=torch.bool))
    assert all(torch.equal(term, whole[name]) for name, term in made(*batch).items())
    assert not torch.equal(whole["dice"], expected["dice"])


def test_a_teachers_temperature_divides_its_logits(batch: tuple) -> None:
    frozen = network(3).eval()
    plain, calibrated = Teacher(name="a", network=frozen), Teacher(name="a", network=frozen, temperature=4.0)
    torch.testing.assert_close(calibrated.maps(batch[0]).logits, plain.maps(batch[0]).logits / 4)
    assert torch.equal(calibrated.maps(batch[0]).coarse, plain.maps(batch[0]).coarse)


def test_teachers_answer_in_the_precision_of_the_training(batch: tuple) -> None:
    teacher = Teacher(name="a", network=network(3).eval())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = teacher.maps(batch[0])
        terms = task(teacher)(*batch)
    assert maps.logits.dtype == torch.bfloat16
    assert not any(each.requires_grad for each in maps)
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_dropped_teachers_leave_their_weight_to_the_others(batch: tuple) -> None:
    """Each step one of: the first alone with weight 3, the second alone with 3, both; in eval mode always both."""
    teachers = Teacher(name="a", network=network(3), weight=1.0), Teacher(name="b", network=network(4), weight=2.0)
    made = task(*teachers, student=network().eval(), options={"drop_teacher": 0.5}).eval()
    a, b = (task(Teacher(name="x", network=t.network), student=made.student)(*batch)["divergence"] for t in teachers)
    torch.testing.assert_close(made(*batch)["divergence"], a + 2 * b)
    made.training = True  # its modules stay in eval mode, so that only the teachers vary
    maps, targets = made.student_maps(batch[0]), targets_of(made, batch[0])
    seen = []
    for step in (*range(12), *range(12)):
        torch.manual_seed(step)
        found = made.terms(maps, *batch, targets)["divergence"]
        seen.append([torch.allclose(found, each) for each in (3 * a, 3 * b, a + 2 * b)].index(True))
    assert set(seen) == {0, 1, 2}
    assert seen[:12] == seen[12:]


def test_drop_teacher_follows_its_probability() -> None:
    """Of three, dropped with 0.3: each is kept as often as the closed form says, and someone always stays."""
    teachers = [Teacher(name=str(n), network=network(n)) for n in (2, 3, 4)]
    made = task(*teachers, options={"drop_teacher": 0.3})
    torch.manual_seed(0)
    draws = [made._teacher_weights() for _ in range(3000)]
    assert min(map(len, draws)) == 1
    for teacher in range(3):  # kept by its own draw, or the luckiest of three that all fail
        kept = sum(teacher in draw for draw in draws) / len(draws)
        assert kept == pytest.approx(0.7 + 0.3**3 / 3, abs=0.03)
    assert {round(sum(draw.values()), 6) for draw in draws} == {3.0}


@pytest.mark.parametrize("mode", MODES)
def test_shuffled_teachers_teach_with_another_samples_maps(batch: tuple, mode: str) -> None:
    """A batch of two has its maps exchanged; labels stay."""
    teacher = Teacher(name="a", network=network(3))
    control = task(teacher, mode=mode, options={"shuffle_teachers": True})
    plain = task(teacher, mode=mode)
    exchanged = [TeacherMaps(*(each.flip(0) for each in maps)) for maps in targets_of(plain, batch[0])]
    shuffled, expected = control(*batch), plain(*batch, exchanged)
    for name, term in expected.items():
        torch.testing.assert_close(shuffled[name], term)
    assert abs(shuffled["divergence"] - plain(*batch)["divergence"]) > 1e-6
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which knows little of a cache's half precision
        control(*batch, [TeacherMaps(*(each.half() for each in maps)) for maps in exchanged])
    with pytest.raises(ValueError, match="batches of 2 or more"):
        control(batch[0][:1], batch[1][:1])


def test_the_projection_learns_and_is_no_part_of_the_student(batch: tuple) -> None:
    """Its channels are the student's and each teacher's; learning, it halves the term with the student at rest."""
    made = task(Teacher(name="a", network=network(3)), Teacher(name="b", network=network(4)), mode="projected")
    shapes = {name: tuple(each.matrix.weight.shape) for name, each in made.projections.items()}
    assert shapes == {
        "similarity_coarse_0": (24, 16), "similarity_fine_0": (3, 2),
        "similarity_coarse_1": (32, 16), "similarity_fine_1": (4, 2),
    }  # fmt: skip
    assert {name for name in made.state_dict() if not name.startswith("student.")} == {
        f"projections.{name}.matrix.weight" for name in shapes
    }
    assert not any("projection" in name for name in made.student.inference_form()[1])
    optimiser = torch.optim.Adam(made.projections.parameters(), lr=0.05)
    values = []
    with torch.no_grad():
        maps, theirs = made.student_maps(batch[0]), made.teachers[0].maps(batch[0])
    for _ in range(30):
        optimiser.zero_grad()
        term = made.teacher_terms(0, maps, theirs, batch[1])["similarity_coarse"]
        term.backward()
        optimiser.step()
        values.append(term.item())
    assert values[-1] < 0.5 * values[0]


def test_everyone_reached_by_the_projected_form_has_a_gradient(batch: tuple) -> None:
    made = task(Teacher(name="a", network=network(3)), student=network().train(), mode="projected").train()
    torch.stack(list(made(*batch).values())).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in made.projections.parameters())
    assert made.projections["similarity_fine_0"](made.student.forward_with_attention(batch[0])[2]).shape[1] == 3


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


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"weight": 0.0}, {}, "weight of teacher t must be positive"),
        ({"temperature": 0.0}, {}, "temperature of teacher t must be above 0"),
        ({}, {"drop_teacher": 1.0}, "probability below 1"),
        ({}, {"drop_teacher": 0.5}, "needs two teachers or more"),
        ({}, {"balanced": True, "weights": {"dice": 0.0, "focal": 0.0}}, "give dice or focal a weight"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, float], options: dict[str, Any], reason: str) -> None:
    weights = options.pop("weights", {})
    with pytest.raises(ValueError, match=reason):
        task(Teacher(name="t", network=network(3), **changes), options=options, **weights)
