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
from typing import IO, Any

from ..errors import TeachFormerError
from ..progress import Progress, duration
from ..run_files import read_manifest
from .arms import Job
from .job_state import claim_job, is_finished
from .run_folder import run_path
from .run_lock import RunLock

LOG_FILE = "log.txt"
REPOSITORY = Path(__file__).parents[2]
POLL_S = 0.1
GRACE_S = 0.3  # between asking a training to end and ending it; it resumes from its checkpoint in both cases


@dataclass(kw_only=True)
class Running:
    """A job's process, from its start to its end."""

    job: Job
    lock: RunLock
    log: IO[bytes]
    process: subprocess.Popen[bytes]
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
        self._devices = _cuda_devices(self.waiting) if parallel > 1 else []

    def run(self) -> dict[str, str]:
        """Returns when nothing is left to do: the reason of each failed run.

        SIGINT and SIGTERM end all processes within two seconds, and this call with ``KeyboardInterrupt``.
        """
        with _sigterm_interrupts(), Progress(len(self.waiting), "cross-validation") as progress:
            try:
                while self.waiting or self.running:
                    ended = self._end_finished() + self._start_ready()
                    if ended:
                        progress.advance(ended)
                    else:
                        time.sleep(POLL_S)
            finally:
                self._stop()
        return self.failed

    def _start_ready(self) -> int:
        """Starts what can start; returns how many jobs left the list without being started here."""
        left = 0
        for job in list(self.waiting):
            unfinished = [run for run in job.after if not is_finished(run)]
            lost = next((run for run in unfinished if run in self.failed), None)
            if is_finished(job.run):
                _say(f"{job.run}: done by another queue")
            elif lost:
                self._fail(job, f"{lost} failed, which it needs")
            elif unfinished or len(self.running) >= self.parallel:
                continue
            else:
                try:
                    if self._start(job):
                        self.waiting.remove(job)
                    continue
                except TeachFormerError as error:
                    self._fail(job, str(error))
            self.waiting.remove(job)
            left += 1
        return left

    def _start(self, job: Job) -> bool:
        """Whether the job is running now: not where another queue has it."""
        folder = run_path(job.run)
        lock = RunLock.take(folder)
        if lock is None:
            if job.run not in self._elsewhere:
                _say(f"{job.run}: waiting for {RunLock.owner(folder)}, which is training it")
                self._elsewhere.add(job.run)
            return False
        if is_finished(job.run):  # by the queue that had the lock until now
            lock.release()
            return False
        slot = min(set(range(self.parallel)) - {each.slot for each in self.running})
        try:
            arguments = claim_job(job)
            log = (folder / LOG_FILE).open("ab")
        except BaseException:
            lock.release()
            raise
        process = self.launch(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment(slot),
            # Its own group, so that its loader processes end with it, and Ctrl+C reaches the queue alone.
            start_new_session=True,
            pass_fds=(lock.descriptor,) if os.name == "posix" else (),
        )
        started = Running(job=job, lock=lock, log=log, process=process, slot=slot, started=time.monotonic())
        self.running.append(started)
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
            each.log.close()
            each.lock.release()
            took = duration(time.monotonic() - each.started)
            if is_finished(each.job.run):
                score = read_manifest(run_path(each.job.run)).get("val_dice")
                _say(f"{each.job.run}: finished in {took}" + ("" if score is None else f", Dice {score:.4f}"))
            else:
                self._fail(each.job, f"{_reason(each)} (log in {run_path(each.job.run) / LOG_FILE})")
        return len(ended)

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
            each.log.close()
            each.lock.release()


def _signal(process: "subprocess.Popen[bytes]", name: str) -> None:
    """A signal to the process and those it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, getattr(signal, name))
        else:
            process.kill()


def _reason(ended: Running) -> str:
    """The last error that a job's log tells, or how its process ended."""
    text = (run_path(ended.job.run) / LOG_FILE).read_text(encoding="utf-8", errors="replace")
    told = [line for line in text.splitlines() if line.startswith("teachformer: error: ")]
    code = ended.process.returncode
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    return told[-1].removeprefix("teachformer: error: ") if told and code > 0 else f"it ended with {ending}"


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
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as SIGINT does."""

    numbers = [signal.SIGINT, signal.SIGTERM]

    def interrupt(*_: object) -> None:
        for number in numbers:  # a second one would interrupt the ending of the processes
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
