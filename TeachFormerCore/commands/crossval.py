"""``teachformer crossval``: the arms of a cross-validation as independent jobs; the same command goes on."""

import argparse
import re
from collections.abc import Sequence


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What to do of a cross-validation, and its configuration with any common key overridden."""
    from ..errors import InputError
    from ..training.arms import parse_crossval

    parser = argparse.ArgumentParser(
        prog="teachformer crossval",
        description="Trains the arms of a cross-validation. A job starts when its teachers are finished; what is "
        "finished is skipped, so the same command goes on after an interruption.",
        epilog="Any key of a training is an option too, and changes it for all arms: see 'teachformer train --help'.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="F", help="YAML: a training's keys, folds, seeds and arms")
    parser.add_argument("--folds", type=_names, metavar="0,1", help="these folds only")
    parser.add_argument("--arms", type=_names, metavar="A,B", help="these arms only, and the teachers they need")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="trainings at once (default 1)")
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="the I-th of N shares of the jobs")
    parser.add_argument("--plan", action="store_true", help="say what would be done and how long it takes, and end")
    arguments, overrides = parser.parse_known_args(list(argv))
    if arguments.parallel < 1:
        raise InputError(f"--parallel must be at least 1, not {arguments.parallel}.")
    arguments.crossval = parse_crossval(["--config", arguments.config, *overrides])
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Does the jobs, or prints their plan; 1 where a job failed."""
    from ..errors import EXIT_SOME_FAILED
    from ..training.arms import make_jobs, select_jobs
    from ..training.job_queue import JobQueue
    from ..training.job_state import check_job, write_crossval
    from ..training.run_folder import run_path

    every = make_jobs(arguments.crossval)
    jobs = select_jobs(every, folds=arguments.folds, arms=arguments.arms, shard=arguments.shard)
    for job in every:  # not only the chosen ones: they all are one study
        check_job(job)
    if arguments.plan:
        from ..training.plan import plan_table

        print(plan_table(jobs, parallel=arguments.parallel))
        return 0
    write_crossval(arguments.crossval, every)
    failed = JobQueue(jobs, parallel=arguments.parallel).run()
    write_crossval(arguments.crossval, every)  # another command may have written it before our runs had folders
    print(f"{run_path(arguments.crossval.name)}: {len(jobs) - len(failed)} of {len(jobs)} jobs are finished")
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}")
    return EXIT_SOME_FAILED if failed else 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share such as 1/4, the first of four")
    return number, count
