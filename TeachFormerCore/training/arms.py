"""The arms of a cross-validation: what each changes of the common configuration, and which jobs follow.

One YAML holds the keys of a training (``run`` names the cross-validation's folder) and three more: ``folds``, ``seeds``
and ``arms``. An arm is a mapping of keys that it changes, at any depth; one that names another ``network`` begins with
no ``network_arguments``. Beside those keys it may have

- ``teachers``: arms by name, or ``{arm: NAME, weight: 0.5, ...}`` with the keys of a teacher. The teacher is that arm's
  run of the same fold, and of the same seed where that arm has it, of its first seed elsewhere;
- ``folds``, ``seeds``: fewer than the others;
- ``seconds_of``: another arm, whose wall-clock time it gets (``equal_time.py``);
- ``ensemble_of``: arms whose predictions are averaged; nothing is trained, the report does it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import InputError
from .command_line import config_from, found_splits, new_parser
from .config import TrainConfig

Fold = int | str


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of training that is compared with others; see the module for the meaning of the fields."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    teachers: list[dict[str, Any]] = field(default_factory=list)
    folds: list[Fold]
    seeds: list[int]
    seconds_of: str | None = None
    ensemble_of: list[str] = field(default_factory=list)

    @property
    def needs(self) -> list[str]:
        """Arms whose runs must be finished before this one's."""
        teachers = [teacher["arm"] for teacher in self.teachers if "arm" in teacher]
        return teachers + ([self.seconds_of] if self.seconds_of else [])


@dataclass(frozen=True, kw_only=True)
class Crossval:
    """A cross-validation as its file describes it; ``arms`` in an order in which teachers come first."""

    name: str
    base: dict[str, Any]
    folds: list[Fold]
    seeds: list[int]
    arms: dict[str, Arm]
    described: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: an arm on a fold with a seed.

    Attributes:
        arm: its name.
        fold: number of the fold, or ``all``.
        seed: of the training.
        config: all of it; ``config.run`` is the run folder.
        after: runs that must be finished before.
        seconds_of: the configuration whose time it gets.
    """

    arm: str
    fold: Fold
    seed: int
    config: TrainConfig
    after: tuple[str, ...] = ()
    seconds_of: TrainConfig | None = None

    @property
    def run(self) -> str:
        """As in the configuration."""
        return self.config.run


def parse_crossval(argv: Sequence[str]) -> Crossval:
    """The cross-validation of ``--config FILE`` and overrides of the common keys.

    Raises:
        InputError: it cannot be used; the arm is named.
        MissingDependencyError: jsonargparse is not installed.
    """
    parser = new_parser(prog="teachformer crossval", description="Any key of the configuration is an option.")
    parser.add_argument("--folds", type=list[Any], default=[0], help="folds to train")
    parser.add_argument("--seeds", type=list[int], default=[0], help="seeds to train with")
    parser.add_argument("--arms", type=dict[str, Any], default={}, help="what each arm changes")
    parsed = parser.parse_args(list(argv))
    values = parsed.as_dict()
    files = values.pop("config")
    arms, folds, seeds = values.pop("arms"), values.pop("folds"), values.pop("seeds")
    base = asdict(found_splits(config_from(values), files))
    return crossval_from(base, folds=folds, seeds=seeds, arms=arms)


def crossval_from(
    base: dict[str, Any], *, folds: Sequence[Fold], seeds: Sequence[int], arms: Mapping[str, Any]
) -> Crossval:
    """A cross-validation of plain values, its arms checked.

    Raises:
        InputError: an arm that cannot be used, by name.
    """
    if not arms or not folds or not seeds:
        raise InputError("A cross-validation needs 'arms', 'folds' and 'seeds', at least one of each.")
    made: dict[str, Arm] = {}
    for name, described in arms.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(name)):
            raise InputError(f"The arm '{name}' names folders: use letters, digits, _ and - only.")
        made[name] = _arm(name, described or {}, folds, seeds)
    for arm in made.values():
        for other in [*arm.needs, *arm.ensemble_of]:
            if other not in made or made[other].ensemble_of:
                raise InputError(f"The arm '{arm.name}' names '{other}', which is no arm that is trained.")
    described = {name: dict(arms[name] or {}) for name in made}
    ordered = {arm.name: arm for arm in _teachers_first(made)}
    return Crossval(
        name=base["run"], base=base, folds=list(folds), seeds=list(seeds), arms=ordered, described=described
    )


def make_jobs(crossval: Crossval) -> list[Job]:
    """Every training, fold by fold, seed by seed, teachers before those whom they teach.

    Raises:
        InputError: a configuration that cannot be used, or a teacher that has no run of a fold; the arm is named.
    """
    return [
        _job(crossval, arm, fold, seed)
        for fold in crossval.folds
        for seed in _every_seed(crossval)
        for arm in crossval.arms.values()
        if fold in arm.folds and seed in arm.seeds and not arm.ensemble_of
    ]


def select_jobs(
    jobs: Sequence[Job],
    *,
    folds: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    shard: tuple[int, int] = (1, 1),
) -> list[Job]:
    """The jobs of some folds and arms, of those the share of a shard, and of all these the teachers they need.

    A shard gets a contiguous part of the jobs. A teacher whom two shards need is in both: whoever comes first trains
    it, the other waits (``queue.py``).

    Raises:
        InputError: a fold or an arm without a job, named.
    """
    for what, wanted, known in (
        ("fold", folds, {str(job.fold) for job in jobs}),
        ("arm", arms, {job.arm for job in jobs}),
    ):
        unknown = [name for name in wanted or [] if name not in known]
        if unknown:
            raise InputError(f"There is no {what} '{unknown[0]}' to train: choose from {', '.join(sorted(known))}.")
    chosen = [job for job in jobs if (folds is None or str(job.fold) in folds) and (arms is None or job.arm in arms)]
    number, count = shard
    share = {job.run for job in chosen[len(chosen) * (number - 1) // count : len(chosen) * number // count]}
    by_run = {job.run: job for job in jobs}
    reached: set[str] = set()
    while share:
        reached |= share
        share = {run for name in share for run in by_run[name].after if run in by_run} - reached
    return [job for job in jobs if job.run in reached]


def _arm(name: str, described: Any, folds: Sequence[Fold], seeds: Sequence[int]) -> Arm:
    if not isinstance(described, Mapping):
        raise InputError(f"The arm '{name}' must be a mapping of the keys it changes, or empty.")
    changes = dict(described)
    try:
        teachers = [{"arm": t} if isinstance(t, str) else dict(t) for t in changes.pop("teachers", None) or []]
        arm = Arm(
            name=name,
            teachers=teachers,
            folds=list(changes.pop("folds", folds)),
            seeds=list(changes.pop("seeds", seeds)),
            seconds_of=changes.pop("seconds_of", None),
            ensemble_of=list(changes.pop("ensemble_of", [])),
            changes=changes,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"The arm '{name}' cannot be used ({error}).") from error
    if not set(arm.folds) <= set(folds):
        raise InputError(f"The arm '{name}' has folds that the cross-validation has not: {arm.folds}.")
    return arm


def _teachers_first(arms: Mapping[str, Arm]) -> Iterator[Arm]:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> Iterator[Arm]:
        if name in above:
            raise InputError(f"The arms {' -> '.join((*above, name))} need each other.")
        if name not in done:
            for needed in arms[name].needs:
                yield from visit(needed, (*above, name))
            if name not in done:
                done.add(name)
                yield arms[name]

    for name in arms:
        yield from visit(name, ())


def _every_seed(crossval: Crossval) -> list[int]:
    named = [seed for arm in crossval.arms.values() for seed in arm.seeds]
    return list(dict.fromkeys([*crossval.seeds, *named]))


def _job(crossval: Crossval, arm: Arm, fold: Fold, seed: int) -> Job:
    config, after = _config(crossval, arm, fold, seed)
    other = None
    if arm.seconds_of:
        timed = crossval.arms[arm.seconds_of]
        if fold not in timed.folds or seed not in timed.seeds:
            raise InputError(f"The arm '{arm.name}' gets the time of '{timed.name}', which has no such fold and seed.")
        other = _config(crossval, timed, fold, seed)[0]
        after = (*after, other.run)
    return Job(arm=arm.name, fold=fold, seed=seed, config=config, after=after, seconds_of=other)


def _config(crossval: Crossval, arm: Arm, fold: Fold, seed: int) -> tuple[TrainConfig, tuple[str, ...]]:
    teachers, after = [], []
    for entry in arm.teachers:
        teacher = dict(entry)
        if "arm" in teacher:
            other = crossval.arms[teacher.pop("arm")]
            if fold not in other.folds:
                raise InputError(f"The arm '{arm.name}' needs '{other.name}' on fold {fold}, which is not trained.")
            teacher["run"] = run_name(crossval.name, other.name, fold, seed if seed in other.seeds else other.seeds[0])
            after.append(teacher["run"])
        teachers.append(teacher)
    base = crossval.base
    if arm.changes.get("network", base["network"]) != base["network"]:
        base = base | {"network_arguments": {}}
    fixed = {"run": run_name(crossval.name, arm.name, fold, seed), "fold": fold, "seed": seed, "teachers": teachers}
    try:
        return config_from(_merged(base, arm.changes) | fixed), tuple(after)
    except InputError as error:
        raise InputError(f"The arm '{arm.name}': {error}") from error


def run_name(name: str, arm: str, fold: Fold, seed: int) -> str:
    """The run of a job, in the folder of its cross-validation."""
    return f"{name}/{arm}_fold{fold}_seed{seed}"


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with changes at any depth; ``network_arguments`` are one value."""
    merged = dict(base)
    for key, value in changes.items():
        inner = isinstance(value, Mapping) and isinstance(base.get(key), Mapping) and key != "network_arguments"
        merged[key] = _merged(base[key], value) if inner else value
    return merged
