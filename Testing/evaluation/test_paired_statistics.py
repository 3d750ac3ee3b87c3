"""Statistics against closed forms, stored numbers and scipy."""

import numpy as np
import pytest
from scipy import stats

from TeachFormerCore.evaluation import statistics
from TeachFormerCore.evaluation.statistics import (
    bca_interval,
    compare,
    d_z,
    detectable_d_z,
    holm,
    non_inferiority,
    paired_differences,
    rank_biserial,
    sign_flip_p,
    smallest_possible_p,
    wilcoxon_p,
)


@pytest.fixture
def differences() -> np.ndarray:
    """Skewed, as differences of Dice are."""
    return np.random.default_rng(2).gamma(2.0, 0.03, 30) - 0.03


def test_pairs_are_matched_by_name():
    first, second = {"B": 0.5, "A": 0.75, "only": 1.0}, {"A": 0.5, "B": 0.25, "other": 0.0}
    assert paired_differences(first, second).tolist() == [0.25, 0.25]


def test_bca_is_scipys(differences):
    for values in (differences, differences[:8]):
        theirs = stats.bootstrap(
            (values,), np.mean, method="BCa", n_resamples=2000, random_state=np.random.default_rng(7)
        ).confidence_interval
        assert bca_interval(values, resamples=2000, seed=7) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_bca_of_no_spread_and_of_too_few():
    assert bca_interval(np.full(5, 0.25)) == (0.25, 0.25)
    assert bca_interval(np.array([0.1])) is None


def test_bca_covers():
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        low, high = bca_interval(random.gamma(2.0, 1.0, 25), resamples=400)
        hits += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_sign_flip_enumerates():
    # Of the 8 patterns of 1, 2, 3 only two have |sum| = 6, four more >= 2 ... and all have |sum| >= 0.
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flip_p(np.array([1.0, 2.0, 3.0]), alternative="greater") == 1 / 8
    assert sign_flip_p(np.array([-1.0, 2.0, 3.0]), alternative="greater") == 2 / 8
    assert sign_flip_p(np.array([1.0, 2.0, -3.0])) == 1
    assert sign_flip_p(np.zeros(4)) == 1


@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_sign_flip_is_scipys_permutation_test(differences, alternative):
    values = differences[:10]
    theirs = stats.permutation_test(
        (values, np.zeros(10)),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        vectorized=True,
        permutation_type="samples",
        n_resamples=np.inf,
        alternative=alternative,
    )
    assert sign_flip_p(values, alternative=alternative) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_drawn_patterns_agree_with_all(differences, monkeypatch):
    values = differences[:14]
    exact = sign_flip_p(values)
    monkeypatch.setattr(statistics, "EXACT_UP_TO", 2)
    monkeypatch.setattr(statistics, "DRAWN_PATTERNS", 20_000)
    drawn = sign_flip_p(values)
    assert drawn == pytest.approx(exact, abs=4 * (exact / 20_000) ** 0.5)
    assert sign_flip_p(np.ones(30)) == pytest.approx(1 / 20_001)  # never 0


def test_wilcoxon_is_scipys(differences):
    assert wilcoxon_p(differences) == stats.wilcoxon(differences).pvalue
    assert wilcoxon_p(differences, alternative="greater") == stats.wilcoxon(differences, alternative="greater").pvalue
    assert wilcoxon_p(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(2 / 16)
    assert wilcoxon_p(np.zeros(6)) is None


def test_equal_figures_are_equal_whatever_the_binary_says():
    assert 0.3 - 0.1 != 0.2
    assert wilcoxon_p(np.array([0.3 - 0.1 - 0.2, 0.0, 0.0])) is None


@pytest.mark.parametrize("tiny", [1e-17, -1e-17])
def test_what_is_0_is_0_to_every_test(tiny):
    values = np.full(4, tiny)
    assert sign_flip_p(values) == 1
    assert compare(values).untied == 0
    assert (wilcoxon_p(values), rank_biserial(values), d_z(values)) == (None, None, None)
    mixed = np.array([0.1, tiny, 0.2, 0.0])
    assert sign_flip_p(mixed) == sign_flip_p(np.array([0.1, 0.2])) == smallest_possible_p(compare(mixed).untied)


@pytest.mark.parametrize("function", [sign_flip_p, wilcoxon_p, rank_biserial, d_z, bca_interval, compare])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(function, value):
    with pytest.raises(ValueError, match="must be finite"):
        function(np.array([0.1, value, 0.2]))


def test_effect_sizes():
    assert d_z(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert d_z(np.array([2.0, 2.0])) is None
    assert d_z(np.array([2.0])) is None
    assert rank_biserial(np.array([1.0, 2.0, 3.0])) == 1
    assert rank_biserial(np.array([-1.0, 2.0, 3.0, 0.0])) == pytest.approx((5 - 1) / 6)
    assert rank_biserial(np.zeros(3)) is None


def test_holm_by_hand():
    # Holm (1979): 0.01 * 4, 0.02 * 3, then never below the one before, never above 1.
    assert holm([0.01, 0.04, 0.02, 0.6]) == pytest.approx([0.04, 0.08, 0.06, 0.6])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_non_inferiority_allows_less_than_the_margin():
    slightly_worse = np.array([-0.01, -0.012, -0.008, -0.011, -0.009, -0.01, -0.012, -0.008])
    shown = non_inferiority(slightly_worse, margin=0.02)
    assert shown.p_permutation == 1 / 256
    assert shown.mean == pytest.approx(-0.01)
    assert shown.interval[0] > -0.02
    # Its lower end is the one-sided bound at 5 %, as the test is.
    assert (shown.confidence, shown.interval) == (0.9, bca_interval(slightly_worse, confidence=0.9))
    assert (compare(slightly_worse).confidence, compare(slightly_worse).interval) == (
        0.95,
        bca_interval(slightly_worse),
    )
    assert non_inferiority(slightly_worse, margin=0.005).p_permutation == 1
    # The same differences are no equality: two-sided they are other than 0.
    assert compare(slightly_worse).p_permutation == 2 / 256


def test_the_same_differences_give_the_same_report(differences):
    assert compare(differences) == compare(differences.copy())


def test_what_few_patients_can_show():
    assert smallest_possible_p(8) == 2 / 256
    assert smallest_possible_p(8, alternative="greater") == 1 / 256
    assert smallest_possible_p(8) == sign_flip_p(np.ones(8))
    assert smallest_possible_p(39) == pytest.approx(1e-5)
    # The t test's power at that effect is 0.8: by simulation.
    effect = detectable_d_z(20)
    draws = np.random.default_rng(0).normal(effect, 1, (4000, 20))
    power = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)
    assert detectable_d_z(44) == pytest.approx(0.432, abs=1e-3)
    assert detectable_d_z(2) is None


def test_the_detectable_effect_is_that_of_the_sign_flip_test_at_its_corrected_level():
    for alternative, alpha in (("two-sided", 0.05 / 3), ("greater", 0.05 / 4)):
        effect = detectable_d_z(8, alternative=alternative, alpha=alpha)
        draws = np.random.default_rng(1).normal(effect, 1, (1000, 8))
        found = [sign_flip_p(values, alternative=alternative) <= alpha for values in draws]
        assert np.mean(found) == pytest.approx(0.8, abs=0.05)
    # No effect is found where the smallest p there is, 2 / 2^8, is above the level.
    assert detectable_d_z(8, alpha=0.05 / 16) is None
    # Where the test's patterns are drawn the t test's power is told, which it comes close to.
    assert detectable_d_z(16) == pytest.approx(detectable_d_z(17), rel=0.1)
