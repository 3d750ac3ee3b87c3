"""What goes wrong around a cross-validation stays with the job that it concerns, and is told."""

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
from miniature import write_miniature
from test_crossval import ScriptedQueue, finish
from untrained import MANIFEST

from TeachFormerCore.commands import main
from TeachFormerCore.errors import InputError
from TeachFormerCore.progress import Progress
from TeachFormerCore.training import job_queue
from TeachFormerCore.training.arms import Crossval, Job, crossval_from, make_jobs, parse_crossval, select_jobs
from TeachFormerCore.training.config import TrainConfig
from TeachFormerCore.training.job_queue import JobQueue
from TeachFormerCore.training.job_state import check_job, claim_job, write_crossval
from TeachFormerCore.training.run_folder import claim_run, run_path
from TeachFormerCore.training.run_lock import HELD, RunLock
from TeachFormerCore.training.train import train

Make = Callable[..., TrainConfig]
Study = Callable[..., Crossval]
Jobs = Callable[..., list[Job]]
WELL = f"open(sys.argv[1] + '/manifest.json', 'w').write({json.dumps(MANIFEST)!r})"


@pytest.fixture
def study(config: Make) -> Study:
    """A cross-validation ``cv`` on fold 0 with seed 0; keywords change the common configuration."""

    def make(arms: dict[str, Any], *, seeds: tuple[int, ...] = (0,), **base: Any) -> Crossval:
        return crossval_from(asdict(config(run="cv", **base)), folds=[0], seeds=list(seeds), arms=arms)

    return make


@pytest.fixture
def jobs(study: Study) -> Jobs:
    """Its jobs."""
    return lambda arms, **options: make_jobs(study(arms, **options))


# --- one study, one configuration ---


def test_no_part_of_a_study_may_have_another_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(JobQueue, "run", lambda self: {})
    file = str(write_miniature(tmp_path, arms={"a": {}}))
    claim_run(make_jobs(parse_crossval(["--config", file]))[0].config)
    assert main(["crossval", "--config", file, "--folds", "1"]) == 0
    assert main(["crossval", "--config", file, "--folds", "1", "--max_steps", "12"]) == 2
    assert "a_fold0_seed0 was started with another configuration (different: max_steps)" in capsys.readouterr().err


def read_jobs(file: Path) -> list[str]:
    return [Path(job["run"]).name for job in json.loads(file.read_text(encoding="utf-8"))["jobs"]]


def test_runs_of_earlier_commands_stay_in_the_study(study: Study) -> None:
    first = study({"a": {}, "b": {}, "c": {}})
    write_crossval(first, make_jobs(first))
    for arm in "ab":
        run_path(f"cv/{arm}_fold0_seed0").mkdir(parents=True)
    later = study({"a": {}, "d": {}}, seeds=(1,))
    file = write_crossval(later, make_jobs(later))
    assert read_jobs(file) == ["a_fold0_seed1", "d_fold0_seed1", "a_fold0_seed0", "b_fold0_seed0"]
    content = json.loads(file.read_text(encoding="utf-8"))
    assert list(content["arms"]) == ["a", "d", "b"]
    assert set(content["configs"]) == {"a", "b", "d"}
    assert (content["folds"], content["seeds"]) == ([0], [1, 0])

    for changed, what in (
        (study({"a": {}}, seeds=(1,), max_steps=7), "different: max_steps"),
        (study({"a": {"batch_size": 4}}, seeds=(1,)), "different: the arm 'a'"),
    ):
        with pytest.raises(InputError, match=f"{what}.*another 'run', or remove their folders"):
            write_crossval(changed, make_jobs(changed))
    moved = study({"a": {"seeds": [1]}}, seeds=(1,), workers=2)
    write_crossval(moved, make_jobs(moved))  # what may differ may differ here too

    file.write_text("{", encoding="utf-8")
    write_crossval(later, make_jobs(later))
    assert read_jobs(file) == ["a_fold0_seed1", "d_fold0_seed1"]


def test_two_commands_at_once_are_one_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins before the first one's runs have folders."""
    file = str(write_miniature(tmp_path, arms={"a": {}}, folds=[0]))

    def others_come(self: JobQueue) -> dict[str, str]:
        second = parse_crossval(["--config", file, "--seeds", "[1]"])
        claim_job(make_jobs(second)[0])
        write_crossval(second, make_jobs(second))
        return {}

    monkeypatch.setattr(JobQueue, "run", others_come)
    assert main(["crossval", "--config", file]) == 0
    assert read_jobs(tmp_path / "miniature" / "crossval.json") == ["a_fold0_seed0", "a_fold0_seed1"]


@pytest.mark.parametrize("first", ["finished", "broken off", "running"])
def test_a_queue_does_not_take_the_run_of_another_configuration(jobs: Jobs, first: str) -> None:
    """It looked when nothing was there; the other queue began after that."""
    (ours,) = jobs({"a": {}})
    theirs = replace(ours, config=replace(ours.config, max_steps=999))
    check_job(ours)
    queue = ScriptedQueue([ours])
    lock = None
    if first == "running":
        lock = RunLock.take(run_path(ours.run))
        claim_job(theirs)
    else:
        ScriptedQueue([theirs], scripts={} if first == "finished" else {"a": "os.kill(os.getpid(), 9)"}).run()
    failed = queue.run()
    assert "another configuration (different: max_steps)" in failed[ours.run]
    assert queue.order == []
    if lock:
        lock.release()


def test_the_arm_whose_time_a_run_got_is_part_of_its_configuration(jobs: Jobs) -> None:
    arms: dict[str, Any] = {"a": {}, "b": {}, "equal": {"seconds_of": "a"}}
    made = {job.arm: job for job in jobs(arms)}
    equal = made["equal"]
    claim_run(replace(equal.config, max_steps=7))
    record = run_path(equal.run) / "equal_time.json"
    record.write_text(json.dumps({"seconds_of": made["a"].run}), encoding="utf-8")
    check_job(equal)
    for described in ({"seconds_of": "b"}, {"max_steps": 7}):
        (other,) = [job for job in jobs(arms | {"equal": described}) if job.arm == "equal"]
        with pytest.raises(InputError, match="different: seconds_of"):
            check_job(other)
    record.unlink()
    with pytest.raises(InputError, match="different: seconds_of"):
        check_job(equal)  # it was trained for its own number of steps


# --- one training in a run folder ---


def test_a_run_is_trained_once_at_a_time(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = config(max_steps=1)
    folder = run_path(wanted.run)
    lock = RunLock.take(folder)
    assert lock
    with pytest.raises(InputError, match=rf"process {os.getpid()} is training it\. Wait until that has ended"):
        train(wanted)
    assert not (folder / "config.yaml").exists()
    with lock, monkeypatch.context() as patch:
        patch.setenv(HELD, str(folder.resolve()))  # as the queue does that has it
        train(wanted)
    (folder / "manifest.json").unlink()
    train(wanted)
    with RunLock.take(folder) or pytest.fail("the training has kept the lock"):
        pass


def test_the_lock_names_the_training_and_not_its_queue(jobs: Jobs) -> None:
    (job,) = jobs({"a": {}})
    queue = ScriptedQueue([job], scripts={"a": f"assert os.environ[{HELD!r}]; time.sleep(60)"})
    try:
        queue._start_ready()
        assert RunLock.owner(run_path(job.run)).endswith(f"process {queue.running[0].process.pid}")
    finally:
        queue._stop()
    with RunLock.take(run_path(job.run)) or pytest.fail("the queue has kept the lock"):
        pass


# --- one job's trouble ---


def test_a_teacher_that_is_removed_fails_its_student_by_name(jobs: Jobs) -> None:
    teacher, other, student = jobs({"t": {}, "a": {}, "s": {"teachers": ["t"]}})
    finish(teacher.run)
    removes = f"os.remove({str(run_path(teacher.run) / 'manifest.json')!r}); {WELL}"
    queue = ScriptedQueue([teacher, other, student], scripts={"a": removes})
    deadline = time.monotonic() + 60
    while (queue.waiting or queue.running) and time.monotonic() < deadline:
        queue._end_finished()
        queue._start_ready()
        time.sleep(0.01)
    assert "t_fold0_seed0, which it needs, is no longer finished" in queue.failed[student.run]
    assert list(queue.failed) == [student.run]


@pytest.mark.parametrize("trouble", ["log", "launch", "damaged"])
def test_an_error_of_one_job_ends_no_other(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    bad, good = jobs({"bad": {}, "good": {}})
    scripts = {}
    launch = ScriptedQueue.launch

    def no_memory(self: ScriptedQueue, arguments: list[str], **options: Any) -> Any:
        if "bad_" in arguments[-1]:
            raise OSError(12, "Cannot allocate memory")
        return launch(self, arguments, **options)

    if trouble == "log":
        (run_path(bad.run) / "log.txt").mkdir(parents=True)
    elif trouble == "launch":
        monkeypatch.setattr(ScriptedQueue, "launch", no_memory)
    else:
        scripts["bad"] = "open(sys.argv[1] + '/manifest.json', 'w').write('x')"
    failed = ScriptedQueue([bad, good], parallel=2, scripts=scripts).run()
    assert list(failed) == [bad.run]
    assert {"log": "log.txt", "launch": "allocate memory", "damaged": "manifest.json"}[trouble] in failed[bad.run]
    with RunLock.take(run_path(bad.run)) or pytest.fail("the queue has kept the lock"):
        pass


def test_the_reason_is_that_of_the_last_attempt(jobs: Jobs) -> None:
    (job,) = jobs({"a": {}})

    def reason(script: str) -> str:
        return ScriptedQueue([job], scripts={"a": script}).run()[job.run]

    assert reason("print('teachformer: error: the disk was full'); sys.exit(2)").startswith("the disk was full")
    assert reason("import no_such_module").startswith("it ended with exit code 1")


def test_a_teacher_that_fails_is_not_trained_again_by_every_shard(jobs: Jobs, tmp_path: Path) -> None:
    taught = {name: {"teachers": ["t"]} for name in "xyz"}
    every = jobs({"t": {}, **taught})
    starts = tmp_path / "starts"
    fails = f"open({str(starts)!r}, 'a').write('x'); print('teachformer: error: no loss'); sys.exit(4)"

    def shards() -> list[ScriptedQueue]:
        chosen = [select_jobs(every, shard=(number, 4)) for number in range(1, 5)]
        return [ScriptedQueue(each, scripts={"t": fails}) for each in chosen]

    for queue in (together := shards()):
        failed = queue.run()
        assert failed[every[0].run].startswith("no loss (log in ")
    assert "as another queue found" in together[-1].failed[every[0].run]
    assert starts.read_text() == "x"
    shards()[0].run()
    assert starts.read_text() == "xx"  # who starts later tries again
    assert ScriptedQueue(every).run() == {}
    assert not (run_path(every[0].run) / "failed.txt").exists()


def test_a_failure_does_not_shorten_the_time_left(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Told(Progress):
        def advance(self, count: int = 1) -> None:
            super().advance(count)
            told.append(self.describe(10))

    monkeypatch.setattr(job_queue, "Progress", Told)
    ScriptedQueue(jobs({"a": {}, "b": {}, "c": {}}), scripts={"a": "sys.exit(1)"}).run()
    assert told == [
        "cross-validation (1 failed): 0 of 2, 10 s",
        "cross-validation (1 failed): 1 of 2, 10 s, 10 s left",
        "cross-validation (1 failed): 2 of 2, 10 s",
    ]


# --- signals ---


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_at_the_start_of_a_training_ends_it_too(jobs: Jobs, name: str) -> None:
    """It arrives when the process is there and the queue does not know it yet."""
    started: list[subprocess.Popen[bytes]] = []

    class Hit(ScriptedQueue):
        def launch(self, arguments: list[str], **options: Any) -> "subprocess.Popen[bytes]":
            started.append(super().launch(arguments, **options))
            os.kill(os.getpid(), getattr(signal, name))
            return started[0]

    number = getattr(signal, name)
    before = signal.signal(number, lambda *_: None)  # where the queue does not look, it would end the tests
    try:
        with pytest.raises(KeyboardInterrupt):
            Hit(jobs({"a": {}}), scripts={"a": "time.sleep(5)"}).run()
        assert started[0].poll() is not None
    finally:
        signal.signal(number, before)
        for process in started:
            process.kill()


def test_what_the_caller_had_ignored_stays_ignored(jobs: Jobs) -> None:
    """As SIGHUP under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        hit = f"os.kill(os.getppid(), {int(signal.SIGHUP)}); {WELL}"
        assert ScriptedQueue(jobs({"a": {}, "b": {}}), scripts={"a": hit}).run() == {}
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_ends_no_training(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", open("/dev/full", "w"))  # noqa: SIM115
    assert ScriptedQueue(jobs({"a": {}, "b": {}})).run() == {}
