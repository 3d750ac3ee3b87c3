"""A function in a thread, and the end of a temporary folder that such a function may still be using."""

import shutil
import threading

from .failure import Failure

# So long the end of the module waits for a process to end, killed if need be, and for its temporary folder to go.
TIDY_S = 2.0


class Task:
    """A function in a thread.

    Attributes:
        failure: what went wrong, once it is no longer ``running``; None otherwise.
    """

    def __init__(self, work, cause):
        self.failure = None
        self._work, self._cause = work, cause
        self._thread = threading.Thread(target=self._guarded, name="TeachFormer task", daemon=True)
        self._thread.start()

    @property
    def running(self):
        return self._thread.is_alive()

    def wait(self, seconds=None):
        self._thread.join(seconds)

    def _guarded(self):
        try:
            self._work()
        except Exception as error:  # told to the user by whoever polls, in the main thread
            self.failure = Failure.of(error, self._cause)


def tidied(folder, *users):
    """The task that removes a folder as soon as all that use it have ended: tasks, processes, None for none."""

    def clear():
        for user in users:
            if user is not None:
                user.wait()
        shutil.rmtree(folder, ignore_errors=True)

    return Task(clear, "")
