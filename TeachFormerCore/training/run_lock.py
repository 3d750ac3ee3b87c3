"""One process at a time in a run folder, also over several machines with one file system."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError

LOCK_FILE = ".lock"
HELD = "TEACHFORMER_HELD_RUN"  # tells a training whose folder's lock its queue holds for it


class RunLock:
    """A lock of the operating system on a file of the run folder.

    It ends with the processes that hold it, however they end, so it cannot become stale. A child process that inherits
    ``descriptor`` holds it too: a training whose queue was killed keeps others out until it ends itself.

    Attributes:
        descriptor: of the open file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, folder: Path, file: str = LOCK_FILE) -> "RunLock | None":
        """The lock of a folder, or None where another process has it; as a context it is given back at its end.

        Raises:
            InputError: the file system has no locks.
        """
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
        except OSError as error:
            os.close(descriptor)
            raise InputError(
                f"The file system of {folder} has no locks ({error}), and two processes could do the same training: "
                "set TEACHFORMER_RUNS to a folder on another one."
            ) from error
        lock = cls(descriptor)
        lock.name(os.getpid())
        return lock

    def name(self, process: int) -> None:
        """Writes into the file who has it, for people."""
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
            os.ftruncate(self.descriptor, 0)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            os.write(self.descriptor, f"{platform.node()}, process {process}\n".encode())

    @staticmethod
    def owner(folder: Path) -> str:
        """Who has, or had, the lock, for people."""
        try:
            return (folder / LOCK_FILE).read_text(encoding="utf-8").strip() or "another process"
        except OSError:
            return "another process"

    def release(self) -> None:
        """Gives it back, also where a loader process that is just ending has inherited it."""
        _unlock(self.descriptor)
        os.close(self.descriptor)

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def training_alone(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a run folder; where this process's queue does so already, that is enough.

    Raises:
        InputError: another process is training there.
    """
    if os.environ.get(HELD) == str(folder.resolve()):
        yield
        return
    lock = RunLock.take(folder)
    if lock is None:
        raise InputError(
            f"{folder}: {RunLock.owner(folder)} is training it. Wait until that has ended, or choose another 'run'."
        )
    with lock:
        yield


def _lock(descriptor: int) -> bool:
    """Whether the file could be locked at once."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows, where closing the file is enough
        return
    fcntl.flock(descriptor, fcntl.LOCK_UN)
