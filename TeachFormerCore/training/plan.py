"""What a cross-validation will cost, before it starts: a line per job with measured seconds per step."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..networks import build_network
from ..progress import duration
from ..run_files import read_manifest
from .arms import Job
from .config import TrainConfig
from .datasource import fold_split, prepared_data
from .job_state import is_finished, started_config
from .pace import Pace, measured_paces, pace_key, paces_of_runs, this_device
from .run_folder import run_path


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job with its cost.

    Attributes:
        job: what is done.
        steps: of the training.
        pace: seconds per step.
        source: where that comes from: ``run`` (finished runs), ``measured``, or ``done``.
    """

    job: Job
    steps: int
    pace: float
    source: str

    @property
    def seconds(self) -> float:
        """What is still to pay."""
        return 0.0 if self.source == "done" else self.steps * self.pace


def plan_jobs(jobs: Sequence[Job]) -> list[PlannedJob]:
    """The jobs with their cost; what no finished run tells is measured by training a few steps."""
    configs = {job.run: job.config for job in jobs}
    folders = {run_path(job.run).parent for job in jobs} | {run_path(".")}
    known = paces_of_runs(sorted(folders))
    keys = {job.run: _key(job.config, configs) for job in jobs}
    unknown: dict[Pace, TrainConfig] = {}
    for job in jobs:
        if keys[job.run] not in known and not is_finished(job.run):
            unknown.setdefault(keys[job.run], job.config)
    measured = dict(zip(unknown, measured_paces(list(unknown.values()), every=configs), strict=True))
    paces = known | measured
    planned: dict[str, PlannedJob] = {}
    for job in jobs:
        if is_finished(job.run):
            manifest = read_manifest(run_path(job.run))
            found = PlannedJob(
                job=job, steps=manifest["steps"], pace=manifest["seconds_per_step"] or 0.0, source="done"
            )
        else:
            pace, source = paces[keys[job.run]], "measured" if keys[job.run] in measured else "run"
            timed = planned.get(job.seconds_of.run) if job.seconds_of else None
            steps = round(timed.steps * timed.pace / pace) if timed else _steps(job.config)
            found = PlannedJob(job=job, steps=steps, pace=pace, source=source)
        planned[job.run] = found
    return list(planned.values())


def plan_table(jobs: Sequence[Job], *, parallel: int) -> str:
    """The plan as text: jobs in order, and the time in all."""
    planned = plan_jobs(jobs)
    width = max(len(each.job.run) for each in planned)
    lines = [f"{'run':<{width}}  {'steps':>6}  {'s/step':>8}  {'from':<8}  time"]
    for each in planned:
        lines.append(
            f"{each.job.run:<{width}}  {each.steps:>6}  {each.pace:>8.4f}  {each.source:<8}  {duration(each.seconds)}"
        )
    total, chain = sum(each.seconds for each in planned), _longest_chain(planned)
    left = sum(each.source != "done" for each in planned)
    lines.append(f"{left} of {len(planned)} jobs to do: {duration(total)} one after the other")
    if parallel > 1:
        lines.append(
            f"with {parallel} at once at least {duration(max(total / parallel, chain))}, if none slows another; "
            f"{duration(chain)} the longest chain of teacher and student"
        )
    return "\n".join(lines)


def _key(config: TrainConfig, configs: dict[str, TrainConfig]) -> Pace:
    networks = []
    for teacher in config.teachers:
        theirs = configs.get(teacher.run) or started_config(teacher.run)
        networks.append({"name": theirs.network, "arguments": _saved_arguments(theirs)} if theirs else {})
    return pace_key(config, [each for each in networks if each], this_device(config))


def _saved_arguments(config: TrainConfig) -> dict[str, object]:
    """The arguments of a network as its manifest will have them: without training-only parts."""
    network = build_network(
        config.network,
        in_channels=len(config.channels),
        out_channels=2,
        spatial_dims=len(config.window),
        image_size=config.window,
        **config.network_arguments,
    )
    return config.network_arguments | network.inference_form()[0]


def _steps(config: TrainConfig) -> int:
    if config.max_steps:
        return config.max_steps
    prepared = prepared_data(config)
    split = fold_split(config, prepared)
    return (config.max_epochs or 0) * max(1, len(split.train_cases) // config.batch_size)


def _longest_chain(planned: Sequence[PlannedJob]) -> float:
    ends: dict[str, float] = {}
    for each in planned:  # teachers come first
        ends[each.job.run] = each.seconds + max((ends.get(run, 0.0) for run in each.job.after), default=0.0)
    return max(ends.values(), default=0.0)
