"""What an arm is: who teaches it, what it is compared with, how large it is."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import InputError
from . import paper
from .arm_results import ArmResults
from .results import PRIOR_TITLES, all_ensembles, teacher_arms
from .study import NAME, Run, Study, Unfinished

Kind = Literal["teacher", "student", "distilled", "baseline", "ensemble", "prior"]
# Keys that differ between an arm's runs, or between machines, and say nothing of what an arm is.
NOT_OF_AN_ARM = ("run", "fold", "seed", "data", "splits", "device", "workers", "tensorboard", "compile")
SIMILARITIES = ("similarity_coarse", "similarity_fine")
TERMS = (*SIMILARITIES, "divergence")
BUILD = ("network_arguments", "max_steps", "max_epochs")


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
        usual: whether it is built, and trained for as many steps, as most arms of its network are.
    """

    name: str
    kind: Kind
    results: ArmResults
    example: Run | None
    runs: tuple[Run, ...]
    facts: NetworkFacts | None
    teachers: tuple[str, ...]
    missing: tuple[Unfinished, ...] = ()
    usual: bool = True

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
        """Whether it may stand beside the paper's figures: nothing is changed, and no term is left out of its loss."""
        return self.is_unchanged and (not self.teachers or self.terms == (True, True))

    @property
    def is_unchanged(self) -> bool:
        """Whether it differs from what the paper did at most by terms of Eq. 4 that are left out."""
        if self.example is None:
            return not self.teachers
        published = paper.TRAINING if self.facts and self.facts.role == "baseline" else paper.TRAINING | paper.LOSS
        return self.usual and _holds(published, self.settings) and (not self.teachers or self._is_taught_as_published)

    @property
    def _is_taught_as_published(self) -> bool:
        coarse, fine, divergence = (self.distillation.get(name) for name in TERMS)
        teachers = self.example.config["teachers"] if self.example else []
        return (
            _holds(paper.DISTILLATION, self.distillation)
            and self.distillation.get("mode") in paper.SIMILARITY_FORMS
            and coarse == fine
            and coarse in (0, 1)
            and divergence in (0, 1)
            and all(one.get("weight", 1) == 1 and not one.get("taps") for one in teachers)
        )

    @property
    def planned_folds(self) -> frozenset[str]:
        """Folds of its runs, finished or not."""
        return frozenset([str(run.fold) for run in self.runs] + [str(one.fold) for one in self.missing])

    @property
    def settings(self) -> dict[str, Any]:
        """Of the training, as flat keys, without the teachers; a network's arguments are one setting."""
        if self.example is None:
            return {}
        config = self.example.config
        others = (*NOT_OF_AN_ARM, "teachers", "distillation", "network_arguments")
        kept = {key: value for key, value in config.items() if key not in others}
        return {**dict(_flat(kept)), "network_arguments": config.get("network_arguments")}


def read_arms(study: Study, results: Mapping[str, ArmResults], describe: Describe) -> list[Arm]:
    """Every arm with results: trained ones in the study's order, ensembles, priors."""
    teachers, ensembles = teacher_arms(study), all_ensembles(study)
    arm_of_folder = {run.folder.name: run.arm for run in study.runs}
    damaged_free = {name: {(r.fold, r.seed) for r in arm.results} for name, arm in results.items()}
    usual = _usual_builds([run for run in study.runs if run.arm in results])
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
                usual=example is None or _build(example) == usual[example.manifest["network"]["name"]],
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
    return min(alone, key=lambda other: len(differing(arm.settings, other.settings)), default=None)


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """The settings that differ; one that did not exist yet when one of two was trained is none of them."""
    return {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}


def _usual_builds(runs: Sequence[Run]) -> dict[str, str]:
    """For each network what most of its arms have, of as many the first."""
    examples = {run.arm: run for run in reversed(runs)}  # the first of each arm
    builds: dict[str, Counter[str]] = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        builds.setdefault(examples[arm].manifest["network"]["name"], Counter())[_build(examples[arm])] += 1
    return {network: counted.most_common(1)[0][0] for network, counted in builds.items()}


def _build(run: Run) -> str:
    return json.dumps([run.config.get(key) for key in BUILD], sort_keys=True)


def _holds(published: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether settings are as published; one that a run did not know yet is."""
    return all(settings.get(key, value) == value for key, value in published.items())


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
