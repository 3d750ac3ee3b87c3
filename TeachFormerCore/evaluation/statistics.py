"""Paired comparisons: what two ways of segmenting the same patients differ by, and how sure that is.

The unit is the patient. Seeds are repeats of the same patients, never more patients: a patient's values are averaged
over cases, labels and seeds before anything is compared. Everything is a function of the differences alone and draws
from a fixed seed, so the same numbers give the same report.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from ..errors import missing_dependency

RESAMPLES = 9999
EXACT_UP_TO = 16  # 2^16 sign patterns are enumerated; beyond, as many are drawn
DRAWN_PATTERNS = 99_999
DECIMALS = 12  # differences of figures that are equal in decimal are not always equal in binary
DRAWN_SAMPLES = 400  # of which the power of the sign-flip test is told
SEED = 0
Alternative = Literal["two-sided", "greater"]


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Differences ``first - second`` of the same patients.

    Attributes:
        pairs: patients with both values.
        untied: of them, those whose difference is not 0 (not the margin), of which alone a test learns.
        mean: of the differences.
        interval: BCa bootstrap interval of the mean; None with fewer than 2 pairs.
        confidence: of the interval, 0..1.
        d_z: mean over standard deviation of the differences (Cohen's d for pairs); None where it does not exist.
        rank_biserial: of the signed ranks, -1..1; None where all differences are 0.
        p_permutation: of the sign-flip permutation test.
        p_wilcoxon: of Wilcoxon's signed-rank test; None where all differences are 0.
    """

    pairs: int
    untied: int
    mean: float
    interval: tuple[float, float] | None
    confidence: float
    d_z: float | None
    rank_biserial: float | None
    p_permutation: float
    p_wilcoxon: float | None


def paired_differences(first: Mapping[str, float], second: Mapping[str, float]) -> np.ndarray:
    """``first - second`` of the patients that both have, in the order of their names."""
    return np.array([first[name] - second[name] for name in sorted(first.keys() & second.keys())], float)


def compare(differences: np.ndarray) -> PairedComparison:
    """Whether paired differences ``(n,)``, n at least 1, are other than 0 (two-sided).

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    return _comparison(differences, shift=0.0, alternative="two-sided", confidence=0.95)


def non_inferiority(differences: np.ndarray, *, margin: float) -> PairedComparison:
    """Whether paired differences ``(n,)`` are above ``-margin`` (one-sided): "not worse by the margin or more".

    Mean, interval and effect sizes are of the differences themselves. The interval is of 90 %, so that its lower end
    is a one-sided bound at 95 %: above ``-margin`` it says the same as the test at 5 %.

    Args:
        margin: positive, in the unit of the differences.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    return _comparison(differences, shift=margin, alternative="greater", confidence=0.90)


def _comparison(
    differences: np.ndarray, *, shift: float, alternative: Alternative, confidence: float
) -> PairedComparison:
    return PairedComparison(
        pairs=len(differences),
        untied=int(np.count_nonzero(_rounded(differences + shift))),
        mean=float(differences.mean()),
        interval=bca_interval(differences, confidence=confidence),
        confidence=confidence,
        d_z=d_z(differences),
        rank_biserial=rank_biserial(differences),
        p_permutation=sign_flip_p(differences + shift, alternative=alternative),
        p_wilcoxon=wilcoxon_p(differences + shift, alternative=alternative),
    )


def _rounded(values: np.ndarray) -> np.ndarray:
    """What all tests and effect sizes are of, so that 0 is the same to each of them.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError(f"Differences must be finite numbers, not {values[~np.isfinite(values)][0]}.")
    return np.round(values, DECIMALS)


def bca_interval(
    values: np.ndarray, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float] | None:
    """The bias-corrected and accelerated bootstrap interval of the mean (Efron 1987); None for fewer than 2 values.

    Raises:
        ValueError: a value is not finite.
        MissingDependencyError: scipy is not installed.
    """
    rounded = _rounded(values)
    if len(values) < 2:
        return None
    if np.ptp(rounded) == 0:
        return float(rounded[0]), float(rounded[0])
    try:
        from scipy import stats
    except ImportError as error:
        raise missing_dependency("scipy", extra="report", purpose="compute statistics") from error
    random = np.random.default_rng(seed)
    low, high = stats.bootstrap(
        (values,), np.mean, n_resamples=resamples, confidence_level=confidence, method="BCa", random_state=random
    ).confidence_interval
    return float(low), float(high)


def sign_flip_p(differences: np.ndarray, *, alternative: Alternative = "two-sided", seed: int = SEED) -> float:
    """p of the sign-flip permutation test of the mean: under the null, each difference's sign is that of a coin.

    Differences of 0 have no sign and change nothing. Exact up to `EXACT_UP_TO` others; beyond, random patterns, with
    the observed one counted among them, so that p is never 0 (Phipson and Smyth 2010).

    Raises:
        ValueError: a difference is not finite.
    """
    differences = _rounded(differences)
    differences = differences[differences != 0]
    count = len(differences)
    if count <= EXACT_UP_TO:
        patterns = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        sums, counted = (2 * patterns - 1) @ differences, 0
    else:
        random, sums = np.random.default_rng(seed), np.empty(DRAWN_PATTERNS)
        for start in range(0, DRAWN_PATTERNS, 4096):
            part = sums[start : start + 4096]
            part[:] = (2 * random.integers(0, 2, (len(part), count), np.int8) - 1) @ differences
        counted = 1
    observed = float(differences.sum())
    rounding = 1e-9 * max(1e-300, float(np.abs(differences).sum()))
    if alternative == "two-sided":
        sums, observed = np.abs(sums), abs(observed)
    extreme = sums >= observed - rounding
    return (int(extreme.sum()) + counted) / (len(sums) + counted)


def wilcoxon_p(differences: np.ndarray, *, alternative: Alternative = "two-sided") -> float | None:
    """p of Wilcoxon's signed-rank test, differences of 0 left out; None where all are 0.

    Raises:
        ValueError: a difference is not finite.
        MissingDependencyError: scipy is not installed.
    """
    rounded = _rounded(differences)
    if not rounded.any():
        return None
    try:
        from scipy.stats import wilcoxon
    except ImportError as error:
        raise missing_dependency("scipy", extra="report", purpose="compute statistics") from error
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]ample size too small.*")
        return float(wilcoxon(rounded, alternative=alternative).pvalue)


def d_z(differences: np.ndarray) -> float | None:
    """Mean over standard deviation (n - 1) of paired differences; None for one value or no spread."""
    if len(differences) < 2:
        return None
    rounded = _rounded(differences)
    return float(rounded.mean() / rounded.std(ddof=1)) if np.ptp(rounded) else None


def rank_biserial(differences: np.ndarray) -> float | None:
    """(sum of positive ranks - sum of negative ranks) / sum of all, -1..1, zeros left out (Kerby 2014)."""
    kept = _rounded(differences)
    kept = kept[kept != 0]
    if not len(kept):
        return None
    from scipy.stats import rankdata

    ranks = rankdata(np.abs(kept))
    return float((np.sign(kept) * ranks).sum() / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of each test adjusted for the whole family (Holm 1979): reject where it is at most alpha."""
    count = len(p_values)
    adjusted, largest = [0.0] * count, 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def smallest_possible_p(untied: int, *, alternative: Alternative = "two-sided") -> float:
    """The smallest p that the sign-flip test can give with so many differences other than 0, however large they are."""
    patterns = 2**untied if untied <= EXACT_UP_TO else DRAWN_PATTERNS + 1
    exact_sides = 2 if alternative == "two-sided" and untied <= EXACT_UP_TO else 1
    return min(1.0, exact_sides / patterns)


@cache
def detectable_d_z(
    pairs: int, *, alternative: Alternative = "two-sided", alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """The smallest d_z of normal differences that the sign-flip test finds with this power; None where there is none.

    Up to `EXACT_UP_TO` pairs from the test itself, on `DRAWN_SAMPLES` samples; beyond, from the noncentral t
    distribution, which it comes close to. 0.43 for the 44 test cases of HECKTOR21 as Teach-Former used it.

    Args:
        pairs: patients whose difference is not 0.
        alternative: of the test.
        alpha: the p up to which it rejects.
        power: 0..1.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    one_sided = alpha if alternative == "greater" else alpha / 2
    return _drawn_d_z(pairs, one_sided, power) if pairs <= EXACT_UP_TO else _student_d_z(pairs, one_sided, power)


def _drawn_d_z(pairs: int, one_sided: float, power: float) -> float | None:
    # Of a sample z + d, a flipped set has a sum as large as the observed one where its own mean is not above 0, so
    # where d is at most -mean(z) of the set: of all sets, the rank that alpha allows tells from which d on p is small.
    allowed = int(one_sided * 2**pairs)
    if allowed < 1:
        return None
    random = np.random.default_rng(SEED)
    sets = ((np.arange(1, 2**pairs)[:, None] >> np.arange(pairs)) & 1).astype(np.float32)
    sets /= sets.sum(1, keepdims=True)
    rank = len(sets) - allowed
    found = [
        np.partition(-sets @ random.standard_normal((pairs, 50), np.float32), rank, axis=0)[rank]
        for _ in range(DRAWN_SAMPLES // 50)
    ]
    return float(np.quantile(np.concatenate(found), power))


def _student_d_z(pairs: int, one_sided: float, power: float) -> float:
    try:
        from scipy.optimize import brentq
        from scipy.stats import nct, t
    except ImportError as error:
        raise missing_dependency("scipy", extra="report", purpose="compute statistics") from error

    critical = t.ppf(1 - one_sided, pairs - 1)

    def missing_power(effect: float) -> float:
        # The other side's tail is nothing at any power of interest, and scipy has no value for it.
        return float(nct.sf(critical, pairs - 1, effect * math.sqrt(pairs))) - power

    return float(brentq(missing_power, 1e-6, 15 / math.sqrt(pairs)))
