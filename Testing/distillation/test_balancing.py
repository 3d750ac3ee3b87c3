"""Automatic weights of Eq. 4: closed forms on linear terms, smoothing, limits, state."""

import math

import pytest
import torch
from test_distillation_task import network, task
from torch import nn

from TeachFormerCore.distillation.balancing import EVERY, LARGEST_SCALE, MEMORY, GradientBalancing, gradient_of
from TeachFormerCore.distillation.teacher import Teacher


def test_a_gradient_is_one_vector_over_all_parameters() -> None:
    """d(x.y) = (y, x), and 0 for what the scalar does not depend on."""
    x, y, z = (nn.Parameter(torch.tensor(values)) for values in ([1.0, 2.0], [3.0, 5.0], [7.0]))
    assert gradient_of(x @ y, [x, y, z]).tolist() == [3, 5, 1, 2, 0]


class Linear:
    """Terms a.x, whose gradient is a whatever x is."""

    def __init__(self) -> None:
        self.x = nn.Parameter(torch.ones(2))

    def step(self, balancing: GradientBalancing, task: float, **terms: float) -> None:
        made = {name: size * self.x @ torch.tensor([0.6, 0.8]) for name, size in terms.items()}
        balancing.step(made, task * self.x @ torch.tensor([0.0, 1.0]), [self.x])


def test_scales_make_the_gradients_as_long_as_the_tasks() -> None:
    balancing, linear = GradientBalancing(["a", "b"]), Linear()
    assert [scale.item() for scale in balancing.scales().values()] == [1, 1]
    linear.step(balancing, 6.0, a=2.0, b=0.5)
    assert {name: scale.item() for name, scale in balancing.scales().items()} == pytest.approx({"a": 3, "b": 12})
    assert not any(scale.requires_grad for scale in balancing.scales().values())


def test_scales_follow_geometrically_and_only_every_so_many_steps() -> None:
    balancing, linear = GradientBalancing(["a"]), Linear()
    linear.step(balancing, 2.0, a=1.0)
    for _ in range(EVERY - 1):
        linear.step(balancing, 50.0, a=1.0)
    assert balancing.scales()["a"].item() == pytest.approx(2)
    linear.step(balancing, 8.0, a=1.0)
    assert balancing.scales()["a"].item() == pytest.approx(math.exp(MEMORY * math.log(2) + (1 - MEMORY) * math.log(8)))


def test_a_term_without_gradient_or_sense_does_no_harm() -> None:
    balancing, linear = GradientBalancing(["a", "b"]), Linear()
    linear.step(balancing, 2.0, a=0.0, b=float("nan"))
    assert [scale.item() for scale in balancing.scales().values()] == pytest.approx([LARGEST_SCALE, 1])


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 32, 32, 32, generator=generator), torch.randint(0, 2, (2, 32, 32, 32), generator=generator)


def test_the_tasks_terms_pull_alike_before_their_weights(batch: tuple) -> None:
    """After the first look each term's gradient is its weight times as long as Eq. 3's; the state goes on."""
    teachers = Teacher(name="a", network=network(3)), Teacher(name="b", network=network(4))
    made = task(
        *teachers, student=network().train(), mode="paper", options={"balanced": True}, divergence=2.0, focal=0.5
    )
    terms = made.train()(*batch)
    parameters = list(made.student.parameters())
    wanted = gradient_of(terms["dice"] + terms["focal"], parameters).norm().item()
    for name, weight in (("similarity_coarse", 1), ("similarity_fine", 1), ("divergence", 2)):
        assert gradient_of(terms[name], parameters).norm().item() == pytest.approx(weight * wanted, rel=1e-3)

    state = made.state_dict()
    assert {"balancing.log_scale", "balancing.steps"} <= set(state)
    again = task(*teachers, student=network().train(), mode="paper", options={"balanced": True}, divergence=2.0)
    again.load_state_dict(state)
    assert again.balancing.steps == 1
    assert torch.equal(again.balancing.log_scale, made.balancing.log_scale)


def test_evaluation_does_not_move_the_scales(batch: tuple) -> None:
    made = task(Teacher(name="a", network=network(3)), options={"balanced": True}).eval()
    with torch.no_grad():
        made(*batch)
    assert made.balancing.steps == 0
