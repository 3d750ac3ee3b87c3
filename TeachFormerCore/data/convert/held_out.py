"""Which labelled cases are kept out for the test: whole patients, and whole centres as far as the number allows.

Neither Teach-Former nor H-DenseFormer published its lists, only how many; these are drawn here, once, by SHA-256 of the
names, so that everybody who converts the same archive gets the same cases.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations

MOST_CENTRES = 12  # whose every combination is tried


def share(total: int, *, part: int, whole: int) -> int:
    """``part`` of ``whole`` cases; of an archive with another number the same share, and never all."""
    return min(total - 1, max(1, round(total * part / whole))) if total > 1 else 0


def draw_test(patients: Mapping[str, str], count: int, *, centres: Mapping[str, str] | None = None) -> set[str]:
    """The cases kept out: exactly ``count`` where the patients' numbers of cases allow it, never more.

    With centres, whole centres that come nearest to ``count`` from below are taken first, and only what is then
    missing comes from one more centre.

    Args:
        patients: the patient of each case.
        count: how many cases.
        centres: the centre of each patient.
    """
    cases: dict[str, list[str]] = defaultdict(list)
    for case, patient in patients.items():
        cases[patient].append(case)
    chosen: set[str] = set()
    order = _shuffled(cases)
    if centres:
        groups: dict[str, list[str]] = defaultdict(list)
        for patient in order:
            groups[centres[patient]].append(patient)
        sizes = {centre: sum(len(cases[patient]) for patient in members) for centre, members in groups.items()}
        whole = _nearest_below(sizes, count)
        chosen = {patient for centre in whole for patient in groups[centre]}
        others = sorted(set(groups) - set(whole), key=lambda centre: (sizes[centre], centre))
        order = [patient for centre in others for patient in groups[centre]]
    left = count - sum(len(cases[patient]) for patient in chosen)
    for patient in order:
        if len(cases[patient]) <= left:
            chosen.add(patient)
            left -= len(cases[patient])
    return {case for case, patient in patients.items() if patient in chosen}


def _nearest_below(sizes: Mapping[str, int], count: int) -> tuple[str, ...]:
    """The combination of groups with the greatest sum up to ``count``, of the fewest; one group always stays out."""
    names = sorted(sizes, key=lambda name: (sizes[name], name))[:MOST_CENTRES]
    best: tuple[str, ...] = ()
    for number in range(1, min(len(names), len(sizes) - 1) + 1):
        for group in combinations(names, number):
            total = sum(sizes[name] for name in group)
            if sum(sizes[name] for name in best) < total <= count:
                best = group
    return best


def _shuffled(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (hashlib.sha256(f"test/{name}".encode()).digest(), name))
