"""A process whose lines are read without ever waiting for them, and that can be ended with everything it started.

Qt-free: the panel polls it with a timer, a test with a loop.
"""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

# After this many seconds a process that was asked to end is killed: the whole cancel stays under 2 s.
GRACE_S = 1.0
# Lines taken up in one poll: a talkative process must not hold the window.
LINES_PER_POLL = 200
TURN_S = 0.001
_MARK = re.compile(r"^<(filter-[a-z]+)>(.*)</\1>$")


def parse(line):
    """``(tag, text)`` of one of Slicer's progress lines, ``("", line)`` of any other."""
    found = _MARK.match(line)
    if not found:
        return "", line
    text = re.sub(r"<[^>]*>", " ", found.group(2)).strip()
    return found.group(1), text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


class ProcessRunner:
    """One process.

    Attributes:
        command: the words it is started with.
        returncode: None while it runs, or before it was started.
    """

    def __init__(self, command, environment=None):
        self.command = [str(word) for word in command]
        self.returncode = None
        self.cancelled = False
        self._environment = {**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        self._lines = queue.SimpleQueue()
        self._process = None
        self._reader = None
        self._ended = None

    def start(self):
        """Starts the process in a group of its own, so that it can be ended with its children."""
        windows = os.name == "nt"
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=self._environment,
            start_new_session=not windows,
            creationflags=(subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW) if windows else 0,
        )
        self._reader = threading.Thread(target=self._read, name="TeachFormer output", daemon=True)
        self._reader.start()

    @property
    def running(self):
        return self._process is not None and self.returncode is None

    def poll(self):
        """The new lines since the last call; sets ``returncode`` once the process has ended and all was read."""
        lines = []
        # Qt's loop may keep Python's lock while it waits (nothing says that Slicer's does not): the reader runs now.
        time.sleep(TURN_S)
        while len(lines) < LINES_PER_POLL:
            try:
                lines.append(self._lines.get_nowait())
            except queue.Empty:
                ended = self.running and self._process.poll() is not None
                # A grandchild may hold the pipe open: a process that has ended is not waited for longer than this.
                if ended and (not self._reader.is_alive() or self._waited()) and self._lines.empty():
                    self.returncode = self._process.returncode
                break
        return lines

    def cancel(self):
        """Asks the process to end, and kills it and its children where it does not; returns at once."""
        if not self.running or self.cancelled:
            return
        self.cancelled = True
        self._signal("SIGTERM")
        timer = threading.Timer(GRACE_S, self._signal, args=["SIGKILL"])
        timer.daemon = True
        timer.start()

    def wait(self):
        """Waits for the end of the process, for a thread that tidies up after it."""
        if self._process is not None:
            self._process.wait()

    def close(self):
        """Ends the process and waits for its end, for when the module or Slicer goes."""
        self.cancel()
        if self._process is None:
            return
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._signal("SIGKILL")

    def _waited(self):
        self._ended = self._ended or time.monotonic()
        return time.monotonic() > self._ended + GRACE_S

    def _signal(self, name):
        if os.name == "nt":
            # No signal reaches a process without a console; it is ended at once, and so are its children. Started and
            # not waited for: this is the window's thread.
            subprocess.Popen(
                ["taskkill", "/F", "/T", "/PID", str(self._process.pid)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )  # fmt: skip
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # The group outlives its leader as long as a child is left.
            os.killpg(self._process.pid, getattr(signal, name))

    def _read(self):
        try:
            for line in self._process.stdout:
                self._lines.put(line.rstrip("\r\n"))
        except (OSError, ValueError) as error:  # the pipe was closed under the reader
            print(f"TeachFormer: {error}", file=sys.stdout)
