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
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..statistics import PairedComparison, compare, holm, non_inferiority, paired_differences
from .arms import Arm, student_alone

MARGIN = 0.02
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
        interim: whether runs of either arm are not finished.
    """

    question: str
    first: Arm
    second: Arm
    patients: tuple[str, ...]
    result: PairedComparison
    p_holm: float
    interim: bool

    @property
    def mixed_folds(self) -> tuple[str, ...]:
        """Folds that one arm trained in another precision than the other, which is then a part of the difference."""
        first, second = (_precisions(arm) for arm in (self.first, self.second))
        return tuple(sorted(fold for fold in first.keys() & second.keys() if first[fold] != second[fold]))

    @property
    def verdict(self) -> str:
        """What the corrected test says at 5 %."""
        if self.question == "teacher":
            return "not inferior" if self.p_holm <= 0.05 else "not shown"
        if self.p_holm > 0.05:
            return "no difference shown"
        return "better" if self.result.mean > 0 else "worse"


def declared_comparisons(arms: Sequence[Arm], awaited: Sequence[Arm] = ()) -> list[Comparison]:
    """Every comparison of which both arms have patients in common, question by question.

    Args:
        arms: with results.
        awaited: planned ones without a result, whose tests are counted.
    """
    found = []
    arms = [*arms, *awaited]
    ablated = [arm for arm in arms if (alone := student_alone(arm, arms)) and arm.planned_folds < alone.planned_folds]
    whole = [arm for arm in arms if arm not in ablated]
    families = {
        "distillation": _against_alone(whole, arms),
        "teacher": _against_teacher(whole, arms),
        "floor": _against_unet(whole, arms),
        "ablation": _against_alone(ablated, arms),
        "caching": _against_online(arms),
    }
    for question, pairs in families.items():
        tested, untested = [], 0
        for first, second in pairs:
            ours, theirs = first.results.values(METRIC), second.results.values(METRIC)
            patients = tuple(sorted(ours.keys() & theirs.keys()))
            if patients:
                differences = paired_differences(ours, theirs)
                one_sided = question == "teacher"
                result = non_inferiority(differences, margin=MARGIN) if one_sided else compare(differences)
                tested.append((first, second, patients, result))
            elif first.missing or second.missing:
                untested += 1
        corrected = holm([result.p_permutation for *_, result in tested] + [1.0] * untested)
        found += [
            Comparison(
                question=question,
                first=first,
                second=second,
                patients=patients,
                result=result,
                p_holm=p,
                interim=bool(first.missing or second.missing),
            )
            for (first, second, patients, result), p in zip(tested, corrected, strict=False)
        ]
    return found


def best_teacher(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """Of an arm's teachers, the one with the highest mean Dice on the patients that all of them were scored on."""
    teachers = [other for other in arms if other.name in arm.teachers]
    shared = set(arm.results.patients)
    for teacher in teachers:
        shared &= teacher.results.patients.keys()
    scored = [(teacher.results.mean(METRIC, shared), teacher) for teacher in teachers]
    known = [(value, teacher) for value, teacher in scored if value is not None]
    return max(known, key=lambda one: one[0])[1] if known else None


def _precisions(arm: Arm) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for run in arm.runs:
        found.setdefault(str(run.fold), set()).add(run.manifest["precision"])
    return found


def _against_alone(tested: Sequence[Arm], arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    # The plain student is whom the distilled arms stand against; other arms without teachers are tested against it.
    plain = {alone.name: alone for arm in arms if arm.kind == "distilled" and (alone := student_alone(arm, arms))}
    for arm in tested:
        if arm.kind == "distilled" and (alone := student_alone(arm, arms)):
            yield arm, alone
        elif arm.kind == "student" and arm.name not in plain:
            for alone in plain.values():
                if alone.network == arm.network:
                    yield arm, alone


def _against_teacher(tested: Sequence[Arm], arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    for arm in tested:
        teachers = [other for other in arms if other.name in arm.teachers] if arm.kind == "distilled" else []
        if teachers:
            yield arm, best_teacher(arm, arms) or teachers[0]


def _against_unet(tested: Sequence[Arm], arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    plain = next((arm for arm in arms if arm.network == U_NET and not arm.teachers), None)
    for arm in tested:
        if plain is not None and arm.kind in ("student", "distilled") and arm.network != U_NET:
            yield arm, plain


def _against_online(arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    def all_but_the_cache(arm: Arm) -> tuple[object, ...]:
        distillation = {key: value for key, value in arm.distillation.items() if key not in OF_THE_CACHE}
        return arm.network, arm.teachers, arm.settings, distillation

    distilled = [arm for arm in arms if arm.kind == "distilled"]
    for cached in distilled:
        for online in distilled:
            outputs = [arm.distillation.get("teacher_outputs") for arm in (cached, online)]
            if outputs == ["cached", "online"] and all_but_the_cache(cached) == all_but_the_cache(online):
                yield cached, online
