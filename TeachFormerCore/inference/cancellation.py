"""Ends a process that is told to stop, at once and with nothing left behind."""

import contextlib
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Protocol

from ..errors import EXIT_CANCELLED

if TYPE_CHECKING:
    from .results import CancellableFiles

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


class Unfinished(Protocol):
    """What another thread can undo."""

    def take_back(self) -> bool:
        """Undoes it, and holds up whoever goes on with it, since the process is to end; False if it is finished."""
        ...


class Cancellation:
    """While it is entered, SIGTERM, SIGINT (and Ctrl+Break on Windows) end this process with exit code 130.

    A thread does it: Python's own handlers wait for the end of the running operation, a convolution or the compression
    of a large file, which can take seconds, and so can the end of a process with large libraries. The files being
    written are removed; once they have appeared under their names the work is done and the signal comes too late. A
    process that is killed without a signal it can see (SIGKILL, TerminateProcess) may leave folders named
    ``.teachformer-*``, never half an output.

    Args:
        always: whether to end also when the files have appeared, since there is more to come.
        farewell: what to say on stderr.

    Attributes:
        unfinished: what to take back.
    """

    def __init__(self, *, always: bool = False, farewell: str = "") -> None:
        self.unfinished: Unfinished | None = None
        self._always = always
        self._farewell = farewell

    def __enter__(self) -> "Cancellation":
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # A handler that does nothing: the signal's number goes to the socket, and no longer ends the process by itself.
        self._previous = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        threading.Thread(target=self._watch, name="cancellation", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        self._writer.close()

    def new_files(self) -> "CancellableFiles":
        """Files to be written next, in place of those before."""
        from .results import CancellableFiles

        self.unfinished = files = CancellableFiles()
        return files

    def _watch(self) -> None:
        with contextlib.closing(self._reader):
            while received := self._reader.recv(1):
                unfinished = self.unfinished
                if received[0] in SIGNALS and (unfinished is None or unfinished.take_back() or self._always):
                    with contextlib.suppress(OSError):
                        os.write(2, self._farewell.encode())
                    os._exit(EXIT_CANCELLED)  # not sys.exit: nothing may be waited for
