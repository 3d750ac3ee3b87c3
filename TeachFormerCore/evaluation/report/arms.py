"""What an arm is: who teaches it, what it is compared with, how large it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import InputError
from .arm_results import ArmResults
from .results import PRIOR_TITLES, all_ensembles, teacher_arms
from .study import NAME, Run, Study, Unfinished

Kind = Literal["teacher", "student", "distilled", "baseline", "ensemble", "prior"]
# Keys that differ between an arm's runs, or between machines, and say nothing of what an arm is.
NOT_OF_AN_ARM = ("run", "fold", "seed", "data", "splits", "device", "workers", "tensorboard", "compile")
SIMILARITIES = ("similarity_coarse", "similarity_fine")


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """A network as it is used after training.

    Attributes:
        role: ``teacher``, ``student`` or ``baseline``, as the papers use it.
        parameters: all of them.
        flops: of one window, twice the multiply-accumulates.
    """

    role: str
    parameters: int
    flops: int


Describe = Callable[[Run], NetworkFacts]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm of which there are results.

    Attributes:
        name: as in the cross-validation.
        kind: what it is in the comparison.
        results: its scores.
        example: one of its runs; None for an ensemble or a prior.
        runs: finished ones.
        facts: of its network; None for an ensemble or a prior.
        teachers: arms that teach it, or that are averaged.
        missing: why runs of it are not there.
    """

    name: str
    kind: Kind
    results: ArmResults
    example: Run | None
    runs: tuple[Run, ...]
    facts: NetworkFacts | None
    teachers: tuple[str, ...]
    missing: tuple[Unfinished, ...] = ()

    @property
    def title(self) -> str:
        """For people."""
        return PRIOR_TITLES.get(self.name, self.name.replace("_", " "))

    @property
    def network(self) -> str:
        """Its network's name; empty for an ensemble or a prior."""
        return self.example.manifest["network"]["name"] if self.example else ""

    @property
    def distillation(self) -> Mapping[str, Any]:
        """The settings of Eq. 1 and Eq. 2; empty without teachers."""
        return self.example.config["distillation"] if self.example and self.kind == "distilled" else {}

    @property
    def terms(self) -> tuple[bool, bool]:
        """Whether Eq. 1 (on P or Q) and Eq. 2 are in its loss."""
        weights = self.distillation
        return any(weights.get(name) for name in SIMILARITIES), bool(weights.get("divergence"))

    @property
    def is_as_published(self) -> bool:
        """Whether nothing is left out of its loss, nor changed on purpose: it may stand beside the paper's figures."""
        return not self.teachers or (self.terms == (True, True) and not self.distillation.get("shuffle_teachers"))

    @property
    def planned_folds(self) -> frozenset[str]:
        """Folds of its runs, finished or not."""
        return frozenset([str(run.fold) for run in self.runs] + [str(one.fold) for one in self.missing])

    @property
    def settings(self) -> dict[str, Any]:
        """Of the training, as flat keys, without the teachers."""
        if self.example is None:
            return {}
        kept = {key: value for key, value in self.example.config.items() if key not in NOT_OF_AN_ARM}
        return dict(_flat({key: value for key, value in kept.items() if key not in ("teachers", "distillation")}))


def read_arms(study: Study, results: Mapping[str, ArmResults], describe: Describe) -> list[Arm]:
    """Every arm with results: trained ones in the study's order, ensembles, priors."""
    teachers, ensembles = teacher_arms(study), all_ensembles(study)
    arm_of_folder = {run.folder.name: run.arm for run in study.runs}
    damaged_free = {name: {(r.fold, r.seed) for r in arm.results} for name, arm in results.items()}
    arms = []
    for name, scored in results.items():
        runs = tuple(r for r in study.runs if r.arm == name and (r.fold, r.seed) in damaged_free[name])
        missing = tuple(one for one in study.unfinished if one.arm == name)
        example = runs[0] if runs else None
        facts = describe(example) if example else None
        kind: Kind
        by: tuple[str, ...]
        if name in PRIOR_TITLES:
            kind, by = "prior", ()
        elif facts is None or example is None:
            kind, by = "ensemble", ensembles[name]
        else:
            by = tuple(arm_of_folder.get(folder, folder) for folder in example.teachers)
            kind = "distilled" if by else _kind(facts.role, name in teachers)
        arms.append(
            Arm(
                name=name,
                kind=kind,
                results=scored,
                example=example,
                runs=runs,
                facts=facts,
                teachers=tuple(by),
                missing=missing,
            )
        )
    return arms


def awaited_arms(study: Study, results: Mapping[str, ArmResults], describe: Describe) -> list[Arm]:
    """The arms that a cross-validation plans and that have no result yet, each as its runs will be."""
    arms = []
    for name in dict.fromkeys(one.arm for one in study.unfinished):
        config = study.planned.get(name)
        if name in results or config is None:
            continue
        network = {"name": config["network"], "arguments": config["network_arguments"]}
        manifest = {**study.example.manifest, "config": config, "network": network, "teachers": config["teachers"]}
        example = Run(arm=name, folder=study.example.folder, manifest=manifest)
        try:
            facts = describe(example)
        except InputError:
            continue  # it will never have a result either
        teachers = tuple(parts["arm"] if (parts := NAME.fullmatch(run)) else run for run in example.teachers)
        arms.append(
            Arm(
                name=name,
                kind="distilled" if teachers else _kind(facts.role, teaches=False),
                results=ArmResults(name=name, results=()),
                example=example,
                runs=(),
                facts=facts,
                teachers=teachers,
                missing=tuple(one for one in study.unfinished if one.arm == name),
            )
        )
    return arms


def student_alone(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm with the same network and no teacher whose training differs least: what distillation has to beat."""
    alone = [
        other
        for other in arms
        if other.example and other is not arm and not other.teachers and other.network == arm.network
    ]
    return min(alone, key=lambda other: len(_differing(arm, other)), default=None)


def _differing(one: Arm, other: Arm) -> set[str]:
    ours, theirs = one.settings, other.settings
    return {key for key in ours | theirs if ours.get(key) != theirs.get(key)}


def _kind(role: str, teaches: bool) -> Kind:
    if teaches or role == "teacher":
        return "teacher"
    return "student" if role == "student" else "baseline"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
