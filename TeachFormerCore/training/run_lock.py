"""One process at a time in a run folder, also over several machines with one file system."""

import os
import platform
from pathlib import Path

from ..errors import InputError

LOCK_FILE = ".lock"


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
    def take(cls, folder: Path) -> "RunLock | None":
        """The lock of a folder, or None where another process has it.

        Raises:
            InputError: the file system has no locks.
        """
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
        except OSError as error:
            os.close(descriptor)
            raise InputError(
                f"The file system of {folder} has no locks ({error}), and two queues would do the same training: set "
                "TEACHFORMER_RUNS to a folder on another one."
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{platform.node()}, process {os.getpid()}\n".encode())
        return cls(descriptor)

    @staticmethod
    def owner(folder: Path) -> str:
        """Who has, or had, the lock, for people."""
        try:
            return (folder / LOCK_FILE).read_text(encoding="utf-8").strip() or "another process"
        except OSError:
            return "another process"

    def release(self) -> None:
        """Gives it back, unless a child still holds it."""
        os.close(self.descriptor)


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
