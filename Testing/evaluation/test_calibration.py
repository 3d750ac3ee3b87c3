"""ECE, Brier and the fitted temperature, by closed forms."""

import numpy as np
import pytest
import torch

from TeachFormerCore.evaluation.calibration import (
    TEMPERATURES,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def binary(foreground: list[float]) -> np.ndarray:
    p = np.array(foreground)
    return np.stack([1 - p, p])


def test_ece_is_the_gap_between_accuracy_and_confidence() -> None:
    # Ten voxels at 0.8, of which seven are right: |0.7 - 0.8|.
    probabilities, label = binary([0.8] * 10), np.array([1] * 7 + [0] * 3)
    assert expected_calibration_error(probabilities, label) == pytest.approx(0.1)
    # With ten sure and right ones beside them: the mean over voxels.
    probabilities, label = binary([0.8] * 10 + [0.0] * 10), np.array([1] * 7 + [0] * 13)
    assert expected_calibration_error(probabilities, label) == pytest.approx(0.05)


def test_calibrated_probabilities_have_no_ece_and_certain_errors_have_all() -> None:
    random = np.random.default_rng(0)
    p = random.uniform(0, 1, 200_000)
    truth = (random.random(p.size) < p).astype(int)
    assert expected_calibration_error(np.stack([1 - p, p]), truth) < 0.005
    assert expected_calibration_error(binary([1.0, 1.0]), np.array([0, 0])) == 1.0


def test_opposite_gaps_in_different_bins_do_not_cancel() -> None:
    probabilities, label = binary([0.6] * 4 + [0.9] * 4), np.array([1, 1, 1, 1, 0, 0, 1, 1])
    assert expected_calibration_error(probabilities, label) == pytest.approx((0.4 + 0.4) / 2)


def test_cases_add_up() -> None:
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.ones(3), (4, 5, 6)).transpose(3, 0, 1, 2)
    label = random.integers(0, 3, (4, 5, 6))
    halves = reliability(probabilities[:, :2], label[:2]) + reliability(probabilities[:, 2:], label[2:])
    whole = expected_calibration_error(probabilities, label)
    assert halves.expected_calibration_error == pytest.approx(whole)
    assert halves.counts.sum() == label.size


def test_brier_score() -> None:
    assert brier_score(binary([1.0, 0.0]), np.array([1, 0])) == 0
    assert brier_score(binary([1.0, 0.0]), np.array([0, 1])) == 2
    assert brier_score(binary([0.7]), np.array([1])) == pytest.approx(2 * 0.3**2)
    assert brier_score(np.full((3, 1), 1 / 3), np.array([2])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    """Labels drawn from softmax(logits / T): the fit finds T, and dividing by it takes the ECE away."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(200_000, 3, generator=generator)
    true = (logits / temperature).softmax(1)
    label = torch.multinomial(true, 1, generator=generator)[:, 0]
    fitted = fit_temperature(logits, label)
    assert fitted == pytest.approx(temperature, rel=0.02)
    before, after = (
        expected_calibration_error((logits / t).softmax(1).T.numpy(), label.numpy()) for t in (1.0, fitted)
    )
    assert after < 0.005
    assert temperature == 1.0 or before > 0.03


def test_log_probabilities_are_logits() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, label = torch.randn(1000, 2, generator=generator), torch.randint(0, 2, (1000,), generator=generator)
    assert fit_temperature(logits.log_softmax(1), label) == pytest.approx(fit_temperature(logits, label), rel=1e-6)


def test_a_faultless_network_stays_within_the_limits() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == pytest.approx(TEMPERATURES[0], rel=1e-3)
    assert fit_temperature(logits, torch.tensor([1, 0])) == pytest.approx(TEMPERATURES[1], rel=1e-3)


def test_shapes_that_do_not_belong_together() -> None:
    for function in (brier_score, expected_calibration_error):
        with pytest.raises(ValueError, match="do not belong together"):
            function(binary([0.5, 0.5]), np.array([1]))
