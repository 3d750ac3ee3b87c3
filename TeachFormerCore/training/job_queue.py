"""Runs the jobs of a cross-validation, several at once, each a process of its own with its log in its run folder.

What is done is read from the run folders, so the same call goes on where a stopped one was. A lock in each run folder
keeps several queues, on one or more machines, from doing the same training twice.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TeachFormerError, as_teachformer_error
from ..files import write_whole
from ..progress import Progress, duration
from ..run_files import read_manifest
from .arms import Job
from .job_state import check_job, claim_job, is_finished
from .run_folder import run_path
from .run_lock import HELD, RunLock

LOG_FILE = "log.txt"
FAILED_FILE = "failed.txt"  # why the last attempt failed, for queues that wait for it
LABEL = "cross-validation"
REPOSITORY = Path(__file__).parents[2]
POLL_S = 0.1
GRACE_S = 0.3  # between asking a training to end and ending it; it resumes from its checkpoint in both cases


@dataclass(kw_only=True)
class Running:
    """A job's process, from its start to its end.

    Attributes:
        job: what is done.
        process: that does it.
        held: the run's lock and the open log.
        log_start: where in the log this attempt begins.
        slot: which of the processes at once it is.
        started: on the monotonic clock.
    """

    job: Job
    process: subprocess.Popen[bytes]
    held: contextlib.ExitStack
    log_start: int
    slot: int
    started: float


class JobQueue:
    """Does every job that is not finished, at most ``parallel`` at once.

    A job starts when the runs of its teachers are finished, here or by another queue. A failed job does not stop the
    others; those whom it would have taught fail with it.

    Args:
        jobs: teachers before those whom they teach.
        parallel: processes at once; with more than one, each computes with one thread.
    """

    def __init__(self, jobs: Sequence[Job], *, parallel: int = 1) -> None:
        self.waiting = [job for job in jobs if not is_finished(job.run)]
        self.parallel = parallel
        self.running: list[Running] = []
        self.failed: dict[str, str] = {}
        self._elsewhere: set[str] = set()
        self._old_failures = {job.run: _failure(job) for job in self.waiting}
        self._devices = _cuda_devices(self.waiting) if parallel > 1 else []

    def run(self) -> dict[str, str]:
        """Returns when nothing is left to do: the reason of each failed run.

        SIGINT, SIGTERM and SIGHUP end all processes within two seconds, and this call with ``KeyboardInterrupt``.
        """
        with _signals_noted() as signals, Progress(len(self.waiting), LABEL) as progress:
            try:
                while self.waiting or self.running:
                    if signals:
                        raise KeyboardInterrupt
                    failed_before = len(self.failed)
                    ended = self._end_finished() + self._start_ready()
                    failed = len(self.failed) - failed_before
                    if failed:  # no pace follows from these, and nothing is left to do of them
                        progress.total -= failed
                        progress.label = f"{LABEL} ({len(self.failed)} failed)"
                    if ended:
                        progress.advance(ended - failed)
                    else:
                        time.sleep(POLL_S)
            finally:
                self._stop()
        return self.failed

    def _start_ready(self) -> int:
        """Starts what can start; returns how many jobs left the list without being started here."""
        before = len(self.waiting) + len(self.running)
        for job in list(self.waiting):
            try:
                if not self._leaves(job):
                    continue
            except (OSError, TeachFormerError) as error:
                self._fail(job, str(as_teachformer_error(error)))
            self.waiting.remove(job)
        return before - len(self.waiting) - len(self.running)

    def _leaves(self, job: Job) -> bool:
        """Whether a job waits no longer: it is running now, was done by another queue, or has failed.

        Raises:
            TeachFormerError, OSError: the job cannot be done; what concerns it alone stops no other.
        """
        if is_finished(job.run):
            check_job(job)
            _say(f"{job.run}: done by another queue")
            return True
        unfinished = [run for run in job.after if not is_finished(run)]
        coming = {each.run for each in self.waiting} | {each.job.run for each in self.running}
        lost = next((run for run in unfinished if run not in coming), None)
        if lost in self.failed:
            raise TeachFormerError(f"{lost} failed, which it needs")
        if lost:
            raise TeachFormerError(
                f"{run_path(lost)}, which it needs, is no longer finished: give the command again to train it"
            )
        return not unfinished and len(self.running) < self.parallel and self._start(job)

    def _start(self, job: Job) -> bool:
        """Whether the job is running now: not where another queue has it."""
        folder = run_path(job.run)
        lock = RunLock.take(folder)
        if lock is None:
            if job.run not in self._elsewhere:
                check_job(job)
                _say(f"{job.run}: waiting for {RunLock.owner(folder)}, which is training it")
                self._elsewhere.add(job.run)
            return False
        with contextlib.ExitStack() as held:
            held.enter_context(lock)
            if is_finished(job.run):  # by whoever had the lock until now
                return False
            check_job(job)  # again: it may have been begun since the command looked
            if _failure(job) not in (None, self._old_failures[job.run]):
                reason = (folder / FAILED_FILE).read_text(encoding="utf-8")
                raise TeachFormerError(f"{reason}, as another queue found")
            (folder / FAILED_FILE).unlink(missing_ok=True)
            arguments = claim_job(job)
            log = held.enter_context((folder / LOG_FILE).open("ab"))
            log_start = log.tell()
            slot = min(set(range(self.parallel)) - {each.slot for each in self.running})
            process = self.launch(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(slot) | {HELD: str(folder.resolve())},
                # Its own group, so that its loader processes end with it, and Ctrl+C reaches the queue alone.
                start_new_session=True,
                pass_fds=(lock.descriptor,) if os.name == "posix" else (),
            )
            started = time.monotonic()
            self.running.append(
                Running(job=job, process=process, held=held.pop_all(), log_start=log_start, slot=slot, started=started)
            )
        lock.name(process.pid)
        _say(f"{job.run}: started, log in {folder / LOG_FILE}")
        return True

    def launch(self, arguments: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        """A job's process, from the arguments of Python and the options of ``subprocess.Popen``."""
        return subprocess.Popen([sys.executable, *arguments], **options)

    def _environment(self, slot: int) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        if self.parallel > 1:  # processes that spin for each other's cores lose most of their time
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        return environment

    def _end_finished(self) -> int:
        ended = [each for each in self.running if each.process.poll() is not None]
        for each in ended:
            self.running.remove(each)
            with each.held:
                self._conclude(each)
        return len(ended)

    def _conclude(self, ended: Running) -> None:
        """Tells how a job ended; of a failure the run's folder too, so that no other queue repeats it."""
        job, folder = ended.job, run_path(ended.job.run)
        try:
            if is_finished(job.run):
                score = read_manifest(folder).get("val_dice")
                took = duration(time.monotonic() - ended.started)
                _say(f"{job.run}: finished in {took}" + ("" if score is None else f", Dice {score:.4f}"))
                return
            reason = f"{_reason(ended)} (log in {folder / LOG_FILE})"
            if ended.process.returncode > 0:  # a killed one may go well the next time
                write_whole(folder / FAILED_FILE, reason)
        except (OSError, TeachFormerError) as error:
            reason = str(as_teachformer_error(error))
        self._fail(job, reason)

    def _fail(self, job: Job, reason: str) -> None:
        self.failed[job.run] = reason
        _say(f"{job.run}: failed: {reason}")

    def _stop(self) -> None:
        """Ends what still runs, on the way out."""
        for each in self.running:
            _signal(each.process, "SIGTERM")
        deadline = time.monotonic() + GRACE_S
        while any(each.process.poll() is None for each in self.running) and time.monotonic() < deadline:
            time.sleep(0.02)
        for each in self.running:
            _signal(each.process, "SIGKILL")
            each.process.wait()
            each.held.close()


def _signal(process: "subprocess.Popen[bytes]", name: str) -> None:
    """A signal to the process and those it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, getattr(signal, name))
        else:
            process.kill()


def _reason(ended: Running) -> str:
    """The last error that a job's log tells of this attempt, or how its process ended."""
    with (run_path(ended.job.run) / LOG_FILE).open("rb") as log:
        log.seek(ended.log_start)
        text = log.read().decode("utf-8", errors="replace")
    told = [line for line in text.splitlines() if line.startswith("teachformer: error: ")]
    code = ended.process.returncode
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    return told[-1].removeprefix("teachformer: error: ") if told and code > 0 else f"it ended with {ending}"


def _failure(job: Job) -> tuple[int, int] | None:
    """Which failure the folder of a job tells of: comparable, and no matter of clocks."""
    try:
        found = (run_path(job.run) / FAILED_FILE).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _cuda_devices(jobs: Sequence[Job]) -> list[str]:
    """The GPUs to deal jobs to that run at once: none where there is one at most, or the configuration names one."""
    if not jobs or any(job.config.device not in ("auto", "cuda") for job in jobs):
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        devices = named.split(",")
    else:
        import torch

        devices = [str(number) for number in range(torch.cuda.device_count())]
    return devices if len(devices) > 1 else []


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """The signals so far that ask to end: noted, and not raised, lest a process be started and then not known.

    One that the caller had ignored stays so, as SIGHUP under nohup.
    """
    noted: list[int] = []
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous = {number: signal.getsignal(number) for number in numbers}
    for number, handler in previous.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, lambda received, _: noted.append(received))
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a closed terminal or a full disk ends no training
        print(line, file=sys.stderr, flush=True)
