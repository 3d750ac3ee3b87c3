"""Cross-validation: arms become jobs, jobs become runs; stopped, repeated, divided, the same comes out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from miniature import write_miniature
from untrained import MANIFEST

from TeachFormerCore.commands import main
from TeachFormerCore.errors import InputError
from TeachFormerCore.training.arms import Crossval, Job, crossval_from, make_jobs, parse_crossval, select_jobs
from TeachFormerCore.training.config import TrainConfig
from TeachFormerCore.training.job_queue import JobQueue
from TeachFormerCore.training.job_state import check_job, claim_job, protocol_of, write_crossval
from TeachFormerCore.training.run_folder import claim_run, run_path
from TeachFormerCore.training.run_lock import RunLock

Make = Callable[..., TrainConfig]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def crossval(config: Make) -> Callable[..., Crossval]:
    """A cross-validation ``cv`` of arms, on folds 0 and 1 with seed 0."""

    def make(arms: dict[str, Any], **options: Any) -> Crossval:
        base = asdict(config(run="cv"))
        return crossval_from(base, **{"folds": [0, 1], "seeds": [0], "arms": arms} | options)

    return make


def finish(run: str, **manifest: Any) -> None:
    """Makes a run look finished."""
    folder = run_path(run)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | manifest), encoding="utf-8")


# --- arms become jobs ---


def test_jobs_come_fold_by_fold_with_teachers_first(crossval: Callable[..., Crossval]) -> None:
    arms = {"student": None, "taught": {"teachers": ["wide"]}, "wide": {"network_arguments": {"filters": 4}}}
    jobs = make_jobs(crossval(arms))
    names = ["student", "wide", "taught"]
    assert [job.run for job in jobs] == [f"cv/{name}_fold{fold}_seed0" for fold in (0, 1) for name in names]
    taught = jobs[2].config
    assert [teacher.run for teacher in taught.teachers] == ["cv/wide_fold0_seed0"]
    assert jobs[2].after == ("cv/wide_fold0_seed0",)
    assert jobs[5].after == ("cv/wide_fold1_seed0",)


def test_an_arm_changes_what_it_names_at_any_depth(crossval: Callable[..., Crossval]) -> None:
    arms = {
        "plain": {},
        "sharp": {"loss": {"dice": 0.5}, "max_steps": None, "max_epochs": 3},
        "other": {"network": "ux_net"},
        "taught": {"teachers": [{"arm": "plain", "weight": 0.25}], "distillation": {"temperature": 2.0}},
    }
    plain, sharp, other, taught = (job.config for job in make_jobs(crossval(arms, folds=[0])))
    assert sharp == replace(
        plain, run=sharp.run, loss=replace(plain.loss, dice=0.5), max_steps=None, max_epochs=3
    )  # and nothing else
    assert plain.network_arguments == {"filters": 2, "transformer_depth": 4}
    assert other.network_arguments == {}  # of another network
    assert taught.teachers[0].weight == 0.25
    assert taught.distillation == replace(plain.distillation, temperature=2.0)


def test_a_teacher_has_the_students_seed_or_its_own_first(crossval: Callable[..., Crossval]) -> None:
    arms = {"wide": {"seeds": [3]}, "both": {}, "taught": {"teachers": ["wide", "both"]}}
    jobs = {job.run: job for job in make_jobs(crossval(arms, folds=[0], seeds=[0, 1]))}
    assert jobs["cv/taught_fold0_seed1"].after == ("cv/wide_fold0_seed3", "cv/both_fold0_seed1")
    assert jobs["cv/taught_fold0_seed1"].config.seed == 1
    assert len(jobs) == 1 + 2 + 2


def test_an_ensemble_is_described_and_not_trained(crossval: Callable[..., Crossval]) -> None:
    made = crossval({"a": {}, "b": {}, "upper": {"ensemble_of": ["a", "b"]}})
    jobs = make_jobs(made)
    assert {job.arm for job in jobs} == {"a", "b"}
    described = json.loads(write_crossval(made, jobs).read_text(encoding="utf-8"))
    assert described["arms"]["upper"] == {"ensemble_of": ["a", "b"]}
    assert [job["run"] for job in described["jobs"]] == [job.run for job in jobs]


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ({}, "at least one of each"),
        ({"a/b": {}}, "names folders"),
        ({"a": {"teachers": ["b"]}}, "'a' names 'b', which is no arm"),
        ({"a": {"teachers": ["e"]}, "e": {"ensemble_of": ["a"]}}, "'a' names 'e', which is no arm"),
        ({"a": {"teachers": ["b"]}, "b": {"teachers": ["a"]}}, "a -> b -> a need each other"),
        ({"a": {"teachers": ["b"]}, "b": {"folds": [0]}}, "needs 'b' on fold 1, which is not trained"),
        ({"a": {"folds": [7]}}, "folds that the cross-validation has not"),
        ({"a": {"netwrok": "unetr"}}, "The arm 'a'.*netwrok"),
        ({"a": {"batch_size": 0}}, "The arm 'a'.*batch_size.*positive"),
        ({"a": {"loss": {"dice": "much"}}}, "The arm 'a'.*dice"),
        ({"a": "unetr"}, "must be a mapping"),
        ({"a": {"seconds_of": "b"}, "b": {"seeds": [4]}}, "gets the time of 'b', which has no such fold and seed"),
    ],
)
def test_arms_that_cannot_be_used_are_refused_by_name(
    crossval: Callable[..., Crossval], arms: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        make_jobs(crossval(arms))


def test_a_selection_brings_the_teachers_it_needs(crossval: Callable[..., Crossval]) -> None:
    jobs = make_jobs(crossval({"wide": {}, "student": {}, "taught": {"teachers": ["wide"]}}))
    chosen = select_jobs(jobs, folds=["1"], arms=["taught"])
    assert [job.run for job in chosen] == ["cv/wide_fold1_seed0", "cv/taught_fold1_seed0"]
    with pytest.raises(InputError, match="no arm 'tought'"):
        select_jobs(jobs, arms=["tought"])
    with pytest.raises(InputError, match="no fold '7'"):
        select_jobs(jobs, folds=["7"])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_shards_cover_every_job_and_double_only_teachers(crossval: Callable[..., Crossval], count: int) -> None:
    jobs = make_jobs(crossval({"wide": {}, "student": {}, "taught": {"teachers": ["wide"]}}))
    shards = [select_jobs(jobs, shard=(number, count)) for number in range(1, count + 1)]
    assert {job.run for shard in shards for job in shard} == {job.run for job in jobs}
    for shard in shards:
        runs = [job.run for job in shard]
        assert all(needed in runs for job in shard for needed in job.after)
    doubled = [job.arm for job in jobs if sum(job in shard for shard in shards) > 1]
    assert set(doubled) <= {"wide"}
    if count == 2:
        assert doubled == []  # a fold each


def test_the_file_and_the_options_make_the_cross_validation(tmp_path: Path) -> None:
    file = write_miniature(tmp_path)
    made = parse_crossval(["--config", str(file), "--max_steps", "5", "--optimiser.power", "0.5"])
    jobs = make_jobs(made)
    assert len(jobs) == 8
    assert {job.config.max_steps for job in jobs} == {5}
    assert jobs[0].config.optimiser.power == 0.5
    assert jobs[0].config.optimiser.learning_rate == 0.01


def test_the_protocol_is_what_the_arms_share(crossval: Callable[..., Crossval]) -> None:
    made = crossval({"a": {}})
    moved = replace(made, base=made.base | {"data": "elsewhere", "run": "other", "device": "cuda"})
    assert protocol_of(moved) == protocol_of(made)
    assert protocol_of(replace(made, base=made.base | {"max_steps": 7})) != protocol_of(made)
    splits = Path(made.base["splits"])
    splits.write_text(json.dumps(json.loads(splits.read_text(encoding="utf-8"))[::-1]), encoding="utf-8")
    before = protocol_of(replace(made, base=made.base | {"splits": None}))
    assert protocol_of(made) != before


# --- jobs become runs ---


@pytest.fixture
def one_job(crossval: Callable[..., Crossval]) -> Job:
    return make_jobs(crossval({"a": {}}, folds=[0]))[0]


def test_a_run_of_another_configuration_is_refused_but_may_move(one_job: Job) -> None:
    check_job(one_job)
    claim_run(one_job.config)
    check_job(replace(one_job, config=replace(one_job.config, data="elsewhere", workers=2)))
    with pytest.raises(InputError, match="different: max_steps"):
        check_job(replace(one_job, config=replace(one_job.config, max_steps=7)))
    arguments = claim_job(replace(one_job, config=replace(one_job.config, data="elsewhere")))
    written = yaml.safe_load(Path(arguments[-1]).read_text(encoding="utf-8"))
    assert (written["data"], written["max_steps"]) == ("elsewhere", 6)
    assert arguments[:3] == ["-m", "TeachFormerCore", "train"]


def test_a_lock_keeps_others_out_until_its_holders_are_gone(tmp_path: Path) -> None:
    """Also until a process that inherited it has ended, although the queue that took it was killed."""
    code = """if True:
        import subprocess, sys, time
        from pathlib import Path
        from TeachFormerCore.training.run_lock import RunLock
        lock = RunLock.take(Path(sys.argv[1]))
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=0, pass_fds=(lock.descriptor,))
        print("held", flush=True)
        time.sleep(60)
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert holder.stdin
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    assert RunLock.take(tmp_path) is None
    assert str(holder.pid) in RunLock.owner(tmp_path)
    holder.kill()
    holder.wait()
    assert RunLock.take(tmp_path) is None  # the child still holds it
    holder.stdin.close()  # ends the child
    deadline = time.monotonic() + 20
    while (lock := RunLock.take(tmp_path)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lock is not None
    lock.release()


class ScriptedQueue(JobQueue):
    """Jobs that are one line of Python; the dictionary says which line, ending well is the default."""

    def __init__(self, *arguments: Any, scripts: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.scripts = scripts or {}
        self.order: list[str] = []

    def launch(self, arguments: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        folder = Path(arguments[-1]).parent
        arm = folder.name.partition("_")[0]
        self.order.append(folder.name)
        well = f"open(sys.argv[1] + '/manifest.json', 'w').write({json.dumps(MANIFEST)!r})"
        code = f"import os, sys, time; {self.scripts.get(arm, well)}"
        return subprocess.Popen([sys.executable, "-c", code, str(folder)], **options)


def test_a_failed_job_is_named_and_stops_only_those_it_would_teach(crossval: Callable[..., Crossval]) -> None:
    arms = {"good": {}, "bad": {}, "taught": {"teachers": ["bad"]}, "fine": {"teachers": ["good"]}}
    jobs = make_jobs(crossval(arms, folds=[0]))
    bad = "print('teachformer: error: no such thing'); sys.exit(2)"
    failed = ScriptedQueue(jobs, parallel=2, scripts={"bad": bad}).run()
    assert list(failed) == ["cv/bad_fold0_seed0", "cv/taught_fold0_seed0"]
    assert failed["cv/bad_fold0_seed0"].startswith("no such thing (log in ")
    assert "bad_fold0_seed0 failed" in failed["cv/taught_fold0_seed0"]
    again = ScriptedQueue(jobs)
    assert again.run() == {}
    assert again.order == ["bad_fold0_seed0", "taught_fold0_seed0"]  # what was finished stays
    killed = ScriptedQueue(make_jobs(crossval({"x": {}}, folds=[0])), scripts={"x": "os.kill(os.getpid(), 9)"}).run()
    assert "signal 9" in killed["cv/x_fold0_seed0"]


def test_several_run_at_once_and_a_student_waits_for_its_teacher(crossval: Callable[..., Crossval]) -> None:
    """Two jobs meet: each waits for a file that the other makes; the student finds its teacher's manifest."""
    arms = {"left": {}, "right": {}, "taught": {"teachers": ["left"]}}
    jobs = make_jobs(crossval(arms, folds=[0]))
    folder = run_path("cv")
    meet = (
        "here = sys.argv[1]; open(here + '/here', 'w'); there = {there!r}\n"
        "while not os.path.exists(there + '/here'): time.sleep(0.01)\n"
        "open(here + '/manifest.json', 'w').write({manifest!r})"
    )
    scripts = {
        "left": meet.format(there=str(folder / "right_fold0_seed0"), manifest=json.dumps(MANIFEST)),
        "right": meet.format(there=str(folder / "left_fold0_seed0"), manifest=json.dumps(MANIFEST)),
        "taught": f"open({str(folder / 'left_fold0_seed0' / 'manifest.json')!r}); "
        f"open(sys.argv[1] + '/manifest.json', 'w').write({json.dumps(MANIFEST)!r})",
    }
    queue = ScriptedQueue(jobs, parallel=2, scripts=scripts)
    assert queue.run() == {}
    assert queue.order[2] == "taught_fold0_seed0"


def test_two_queues_never_do_the_same_job(crossval: Callable[..., Crossval], capfd: pytest.CaptureFixture[str]) -> None:
    jobs = make_jobs(crossval({"a": {}, "b": {}}, folds=[0]))
    lock = RunLock.take(run_path(jobs[0].run))
    assert lock
    queue = ScriptedQueue(jobs)
    assert queue._start_ready() == 0
    assert [each.job.arm for each in queue.running] == ["b"]  # a is another's
    while not queue._end_finished():
        time.sleep(0.01)
    assert queue._start_ready() == 0
    assert "waiting for" in capfd.readouterr().err
    finish(jobs[0].run)
    lock.release()
    assert queue.run() == {}
    assert queue.order == ["b_fold0_seed0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_within_two_seconds(tmp_path: Path, number: signal.Signals) -> None:
    """A job that shrugs SIGTERM off, with a process of its own, as a training with loader processes may."""
    code = """if True:
        import json, signal, sys
        from dataclasses import asdict
        sys.path.insert(0, "Testing/training")
        from pathlib import Path
        from test_crossval import ScriptedQueue, crossval_from, make_jobs
        from TeachFormerCore.errors import EXIT_CANCELLED
        from TeachFormerCore.training.config import TrainConfig
        signal.signal(signal.SIGINT, signal.default_int_handler)
        base = asdict(TrainConfig(data="d", run="cv", network="unetr", channels=["CT"], patch_size=[32, 32],
                                  spacing=[1.0] * 3, splits="s", max_steps=1, device="cpu"))
        stubborn = "import signal, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN); " \\
            "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); " \\
            "open(sys.argv[1] + '/pid', 'w').write(str(c.pid)); time.sleep(60)"
        jobs = make_jobs(crossval_from(base, folds=[0], seeds=[0], arms={"a": {}, "b": {}}))
        try:
            ScriptedQueue(jobs, parallel=2, scripts={"a": stubborn, "b": stubborn}).run()
        except KeyboardInterrupt:
            sys.exit(EXIT_CANCELLED)
    """
    environment = {**os.environ, "TEACHFORMER_RUNS": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=environment)
    files = [tmp_path / "cv" / f"{arm}_fold0_seed0" / "pid" for arm in "ab"]
    deadline = time.monotonic() + 120
    while not all(file.is_file() and file.read_text() for file in files):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sent = time.monotonic()
    process.send_signal(number)
    children = [int(file.read_text()) for file in files]
    while any(_alive(pid) for pid in children) and time.monotonic() < sent + 10:
        time.sleep(0.01)
    assert time.monotonic() - sent < 2
    assert process.wait(timeout=60) == 130


def _alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the real thing ---


def test_the_command_runs_without_image_libraries_fails_by_name_and_goes_on(tmp_path: Path) -> None:
    """From prepared cases, with SimpleITK and MONAI hidden; the arm that cannot work is named, exit 1."""
    (tmp_path / "hide").mkdir()
    hidden = ("SimpleITK", "monai", "nibabel")
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden}))"
    (tmp_path / "hide" / "sitecustomize.py").write_text(code)
    arms = {"student": {}, "broken": {"network_arguments": {"filters": 1, "no_such": 1}}}
    file = write_miniature(tmp_path, arms=arms, max_steps=2)
    paths = f"{tmp_path / 'hide'}{os.pathsep}{REPOSITORY}"
    command = [sys.executable, "-m", "TeachFormerCore", "crossval", "--config", str(file), "--folds", "1"]
    done = subprocess.run(
        [*command, "--parallel", "2"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": paths},
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert "1 of 2 jobs are finished" in done.stdout
    assert "failed: " in done.stdout
    assert "broken_fold1_seed0" in done.stdout
    assert "does not take these arguments" in done.stdout
    run = tmp_path / "miniature" / "student_fold1_seed0"
    assert (run / "per_case.csv").exists()
    assert "training" in (run / "log.txt").read_text(encoding="utf-8") or (run / "log.txt").stat().st_size > 0
    assert main([*command[3:], "--arms", "student"]) == 0  # nothing is left to do


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_miniature(tmp_path))
    assert main(["crossval", "--config", file, "--parallel", "0"]) == 2
    assert "--parallel must be at least 1" in capsys.readouterr().err
    assert main(["crossval", "--config", file, "--arms", "nobody"]) == 2
    assert "no arm 'nobody'" in capsys.readouterr().err
    for shard in ("0/2", "3/2", "half"):
        with pytest.raises(SystemExit) as caught:
            main(["crossval", "--config", file, "--shard", shard])
        assert caught.value.code == 2
