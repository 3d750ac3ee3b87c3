"""The declared comparisons. Declared here, before anyone looks at a number; whatever is trained is in its family.

The questions, each a family of its own, for Dice per patient:

1. *Does distillation help?* Every arm of a student's network with teachers, or trained in another way, against the
   student alone. Two-sided.
2. *Is the student as good as its teacher?* Every distilled student against the best of its teachers, by mean Dice on
   the same patients. One-sided: not worse by 2 Dice points or more.
3. *Is it worth it?* Students, alone and distilled, against the plain U-Net. Two-sided.
4. *Ablations.* Arms that the cross-validation plans on fewer folds than the student alone are in none of these, but in
   a family of their own, against the student alone. Two-sided.
5. *What does caching cost?* Arms that learn from cached teachers against the arm that differs in nothing but asking
   them online (same view for teacher and student). Two-sided.

Holm's correction is over all tests of a family, with the permutation test's p. A test of an arm that is planned and has
no result yet counts with p = 1, so that the others are corrected for the whole family.

Patients are paired by `arm_results.shared_values`: a false alarm of either arm counts, against Dice 1 of the other
where that is rightly empty.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..statistics import (
    Alternative,
    PairedComparison,
    compare,
    holm,
    non_inferiority,
    paired_differences,
    smallest_possible_p,
)
from .arm_results import average, shared_values
from .arms import Arm, differing, student_alone

MARGIN = 0.02
ALPHA = 0.05
METRIC = "dice"
QUESTIONS = {
    "distillation": "Does distillation help? (against the student alone)",
    "teacher": "As good as its best teacher? (non-inferiority, margin 2 Dice points)",
    "floor": "Better than the plain U-Net?",
    "ablation": "Ablations on fewer folds (against the student alone)",
    "caching": "What does caching cost? (cached teachers against online ones)",
}
U_NET = "unet"
OF_THE_CACHE = ("teacher_outputs", "cached_views", "cache_gigabytes", "quarter_turns")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One test of a family.

    Attributes:
        question: a key of `QUESTIONS`.
        first, second: the arms; the difference is first minus second.
        patients: who have both values.
        result: of the tests.
        p_holm: the permutation test's p, corrected for the family.
        least_p_holm: what that would be if all differences of the whole family were as large as can be.
        tests: of the family.
        interim: whether runs of either arm, or of a teacher that may be the best, are not finished.
    """

    question: str
    first: Arm
    second: Arm
    patients: tuple[str, ...]
    result: PairedComparison
    p_holm: float
    least_p_holm: float
    tests: int
    interim: bool

    @property
    def mixed_folds(self) -> tuple[str, ...]:
        """Folds that one arm trained in another precision than the other, which is then a part of the difference."""
        first, second = (_precisions(arm) for arm in (self.first, self.second))
        return tuple(sorted(fold for fold in first.keys() & second.keys() if first[fold] != second[fold]))

    @property
    def alternative(self) -> Alternative:
        """Of its test."""
        return _alternative(self.question)

    @property
    def can_be_shown(self) -> bool:
        """Whether so few patients can show anything in so many tests, however large it is."""
        return self.least_p_holm <= ALPHA

    @property
    def verdict(self) -> str:
        """What the corrected test says at 5 %."""
        if not self.can_be_shown:
            claim = "non-inferiority" if self.question == "teacher" else "a difference"
            return f"{claim} cannot be shown with {self._numbers}"
        if self.question == "teacher":
            return "not inferior" if self.p_holm <= ALPHA else "not shown"
        if self.p_holm > ALPHA:
            return "no difference shown"
        return "better" if self.result.mean > 0 else "worse"

    @property
    def _numbers(self) -> str:
        pairs, untied = self.result.pairs, self.result.untied
        patients = f"{pairs} patient{'' if pairs == 1 else 's'}"
        differing = "" if untied == pairs else f", of whom {untied} differ,"
        return f"{patients}{differing} and {self.tests} test{'' if self.tests == 1 else 's'}"


def declared_comparisons(arms: Sequence[Arm], awaited: Sequence[Arm] = ()) -> list[Comparison]:
    """Every comparison of which both arms have patients in common, question by question.

    Args:
        arms: with results.
        awaited: planned ones without a result, whose tests are counted.
    """
    arms = [*arms, *awaited]
    ablated = [arm for arm in arms if (alone := student_alone(arm, arms)) and arm.planned_folds < alone.planned_folds]
    whole = [arm for arm in arms if arm not in ablated]
    families: dict[str, Iterable[tuple[Arm, Arm | None]]] = {
        "distillation": against_alone(whole, arms),
        "teacher": _against_teacher(whole, arms),
        "floor": _against_unet(whole, arms),
        "ablation": against_alone(ablated, arms),
        "caching": _against_online(arms),
    }
    return [one for question, pairs in families.items() for one in family(question, pairs, arms)]


def family(question: str, pairs: Iterable[tuple[Arm, Arm | None]], arms: Sequence[Arm]) -> list[Comparison]:
    """The tests of one question that can be made, corrected for all of them.

    Args:
        question: a key of `QUESTIONS`.
        pairs: of arms; without a second one where it is not known yet, which counts as a test without a result.
        arms: all of them.
    """
    alternative = _alternative(question)
    tested, untested = [], 0
    for first, second in pairs:
        ours, theirs = shared_values([first.results, second.results], METRIC) if second else ({}, {})
        if second and ours:
            differences = paired_differences(ours, theirs)
            one_sided = alternative == "greater"
            result = non_inferiority(differences, margin=MARGIN) if one_sided else compare(differences)
            tested.append((first, second, tuple(ours), result))
        elif second is None or first.missing or second.missing:
            untested += 1
    results = [result for *_, result in tested]
    corrected = holm([result.p_permutation for result in results] + [1.0] * untested)
    # Holm's p of a test only rises with that of another: all at their smallest, each has its smallest.
    smallest = [smallest_possible_p(result.untied, alternative=alternative) for result in results]
    least = holm(smallest + [1.0] * untested)
    return [
        Comparison(
            question=question,
            first=first,
            second=second,
            patients=patients,
            result=result,
            p_holm=p,
            least_p_holm=least_p,
            tests=len(tested) + untested,
            interim=any(arm is None or arm.missing for arm in _decided_by(question, first, second, arms)),
        )
        for (first, second, patients, result), p, least_p in zip(tested, corrected, least, strict=False)
    ]


def _alternative(question: str) -> Alternative:
    return "greater" if question == "teacher" else "two-sided"


def _decided_by(question: str, first: Arm, second: Arm, arms: Sequence[Arm]) -> list[Arm | None]:
    """The arms on which a comparison depends: of one with the best teacher all teachers, None for one that is lost."""
    by_name = {arm.name: arm for arm in arms}
    return [first, second, *(map(by_name.get, first.teachers) if question == "teacher" else ())]


def best_teacher(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """Of an arm's teachers with results, the one with the highest mean Dice on the patients that all were scored on.

    None where there is none, or no such patient.
    """
    teachers = [other for other in arms if other.name in arm.teachers and other.results.results]
    _, *values = shared_values([one.results for one in (arm, *teachers)], METRIC)
    scored = [(average(found.values()), one) for one, found in zip(teachers, values, strict=True)]
    known = [(value, one) for value, one in scored if value is not None]
    return max(known, key=lambda each: each[0])[1] if known else None


def _precisions(arm: Arm) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for run in arm.runs:
        found.setdefault(str(run.fold), set()).add(run.manifest["precision"])
    return found


def against_alone(tested: Sequence[Arm], arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    """Every arm of a student's network against the student alone."""
    # The plain student is whom the distilled arms stand against; other arms without teachers are tested against it.
    plain = {alone.name: alone for arm in arms if arm.kind == "distilled" and (alone := student_alone(arm, arms))}
    for arm in tested:
        if arm.kind == "distilled" and (alone := student_alone(arm, arms)):
            yield arm, alone
        elif arm.kind == "student" and arm.name not in plain:
            for alone in plain.values():
                if alone.network == arm.network:
                    yield arm, alone


def _against_teacher(tested: Sequence[Arm], arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm | None]]:
    for arm in tested:
        if arm.kind == "distilled" and any(other.name in arm.teachers for other in arms):
            yield arm, best_teacher(arm, arms)


def _against_unet(tested: Sequence[Arm], arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    plain = next((arm for arm in arms if arm.network == U_NET and not arm.teachers), None)
    for arm in tested:
        if plain is not None and arm.kind in ("student", "distilled") and arm.network != U_NET:
            yield arm, plain


def _against_online(arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    def differ_by_the_cache_alone(one: Arm, other: Arm) -> bool:
        return (
            (one.network, one.teachers) == (other.network, other.teachers)
            and not differing(one.settings, other.settings)
            and differing(one.distillation, other.distillation) <= set(OF_THE_CACHE)
        )

    distilled = [arm for arm in arms if arm.kind == "distilled"]
    for cached in distilled:
        for online in distilled:
            outputs = [arm.distillation.get("teacher_outputs") for arm in (cached, online)]
            if outputs == ["cached", "online"] and differ_by_the_cache_alone(cached, online):
                yield cached, online
