"""A loss that runs away is stopped by name, one that only stumbles is not, and the last good checkpoint stays."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from TeachFormerCore.distillation import segmentation_loss
from TeachFormerCore.errors import TeachFormerError
from TeachFormerCore.training import checkpoint, divergence
from TeachFormerCore.training.config import OptimiserConfig, TrainConfig
from TeachFormerCore.training.divergence import FIRST_STEPS, LIMIT, MULTIPLE, STEPS_ABOVE, DivergenceWatch
from TeachFormerCore.training.train import train


def watched(*values: float, name: str = "focal") -> DivergenceWatch:
    """A watch that has seen these values from step 0 on."""
    watch = DivergenceWatch()
    for step, value in enumerate(values):
        watch.look({"dice": 0.9, name: value}, step=step)
    return watch


CALM = (0.5,) * FIRST_STEPS
HIGH = MULTIPLE + 1


def test_what_stays_above_its_bound_has_run_away() -> None:
    watch = watched(*CALM, *[HIGH] * (STEPS_ABOVE - 1))
    assert watch.alarmed
    with pytest.raises(TeachFormerError, match="'focal' has run away: it is 21 at step 69") as caught:
        watch.look({"dice": 0.9, "focal": HIGH}, step=FIRST_STEPS + STEPS_ABOVE - 1)
    assert caught.value.exit_code == 4


def test_what_comes_back_has_not() -> None:
    watch = watched(*CALM, *([HIGH] * (STEPS_ABOVE - 1) + [1.0]) * 3)
    assert not watch.alarmed


def test_the_bound_is_a_multiple_of_the_first_steps_largest_value_and_of_1() -> None:
    watched(*CALM, *[MULTIPLE] * 2 * STEPS_ABOVE)
    first = (4.0, 1.0) + (0.5,) * (FIRST_STEPS - 2)
    watched(*first, *[4 * MULTIPLE] * 2 * STEPS_ABOVE)
    with pytest.raises(TeachFormerError, match="above 80 for 50 steps, after at most 4 at the beginning"):
        watched(*first, *[4 * MULTIPLE + 1] * STEPS_ABOVE)


def test_the_first_steps_themselves_are_no_alarm() -> None:
    assert not watched(*[HIGH] * FIRST_STEPS).alarmed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2 * LIMIT, -2 * LIMIT])
def test_at_once_where_it_is_beyond_all_bounds(value: float) -> None:
    with pytest.raises(TeachFormerError, match="'divergence' became .* at step 3: the training stopped"):
        watched(1.0, 1.0, 1.0, value, name="divergence")


def test_a_resumed_watch_knows_the_sizes() -> None:
    """The rule goes on as if nothing had happened: the first steps are not those after the resumption."""
    straight, resumed = watched(*(3.0,) * FIRST_STEPS), DivergenceWatch()
    resumed.load_state_dict(straight.state_dict())
    for watch in (straight, resumed):
        for step in range(FIRST_STEPS, FIRST_STEPS + 5):
            watch.look({"dice": 0.9, "focal": 3 * MULTIPLE + 1}, step=step)
        assert watch.alarmed
    assert resumed.state_dict() == straight.state_dict() == {"sizes": {"dice": 1.0, "focal": 3.0}}


def test_a_diverging_run_keeps_its_last_good_checkpoint(
    config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The focal term is blown up from step 7 on; two steps are an epoch, so that of steps 6 and 7 is not kept.

    The same command goes on from step 6 and, with the same loss, stops at the same step.
    """
    monkeypatch.setattr(divergence, "FIRST_STEPS", 4)
    monkeypatch.setattr(divergence, "STEPS_ABOVE", 6)
    monkeypatch.setattr(checkpoint, "SHARE_OF_TIME", 1.0)  # after each epoch
    plain = segmentation_loss.focal_loss

    def explode(first: int) -> Callable[..., torch.Tensor]:
        calls = iter(range(first, 1000))
        return lambda *arguments, **options: plain(*arguments, **options) + (1e3 if next(calls) >= 7 else 0)

    configuration = config(check_every=1000, max_steps=200)
    for first in (0, 6):
        monkeypatch.setattr(segmentation_loss, "focal_loss", explode(first))
        with pytest.raises(TeachFormerError, match="'focal' has run away: .* at step 12"):
            train(configuration)
        kept = torch.load(Path(configuration.run) / "checkpoints" / "last.ckpt", weights_only=True)
        assert kept["step"] == 6
    assert not (Path(configuration.run) / "manifest.json").exists()


def test_a_gradient_that_is_not_finite_is_found_before_it_moves_the_weights(
    config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The square root of 0 is 0, and has no slope."""
    plain, calls = segmentation_loss.focal_loss, iter(range(1000))

    def pointed(logits: torch.Tensor, *arguments: torch.Tensor, **options: float) -> torch.Tensor:
        more = (0 * logits.sum()).sqrt() if next(calls) >= 3 else 0
        return plain(logits, *arguments, **options) + more

    monkeypatch.setattr(segmentation_loss, "focal_loss", pointed)
    configuration = config(check_every=1000)
    with pytest.raises(TeachFormerError, match="The gradient of the loss term 'focal' is not finite at step 3: the"):
        train(configuration)
    assert torch.load(Path(configuration.run) / "checkpoints" / "last.ckpt", weights_only=True)["step"] == 2


@pytest.mark.parametrize(
    ("steps", "told"),
    [(1, "The loss of the cases that choose became nan at step 1"), (2, "The weights '.*' reach .* after step 1")],
)
def test_the_last_step_of_an_epoch_or_run_is_looked_at_too(
    config: Callable[..., TrainConfig], steps: int, told: str
) -> None:
    """No loss comes after it that would tell; a batch of 5 makes every step an epoch."""
    optimiser = OptimiserConfig(name="sgd", learning_rate=1e30)
    configuration = config(optimiser=optimiser, max_steps=steps, batch_size=5, check_every=1000)
    with pytest.raises(TeachFormerError, match=told):
        train(configuration)
    assert not (Path(configuration.run) / "checkpoints").exists()
    assert not (Path(configuration.run) / "manifest.json").exists()


def test_a_choice_that_is_not_finite_stops(config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    from TeachFormerCore.training.case_scores import CaseEvaluator

    plain = CaseEvaluator.score

    def no_number(*given: object, **options: object) -> object:
        return replace(plain(*given, **options), loss=float("nan"))

    monkeypatch.setattr(CaseEvaluator, "score", no_number)
    with pytest.raises(TeachFormerError, match="The loss of the cases that choose became nan at step 2"):
        train(config())
