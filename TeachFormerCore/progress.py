"""Progress of a long job, with the time left, on a terminal or in a log."""

import shutil
import sys
import threading
import time
from typing import TextIO

LOG_INTERVAL_S = 10.0  # a log gets at most one line in this time
TERMINAL_INTERVAL_S = 0.1


class Progress:
    """Counts finished items: one rewritten line on a terminal, an occasional line elsewhere.

    The line ends with the last item; a job that may stop earlier uses this as a context manager, or calls ``close()``.
    Items may be counted from several threads. A job shorter than the log's interval leaves no line in a log.

    Args:
        total: the number of items; 0 is allowed.
        label: what is being done, e.g. ``"checking STS_PETCT_MR"``.
        stream: where to, standard error by default; results belong on standard output.
    """

    def __init__(self, total: int, label: str, stream: TextIO | None = None) -> None:
        self.total = total
        self.label = label
        self.done = 0
        # Looked up here and not in the signature, so that a redirected sys.stderr is honoured.
        self._stream = sys.stderr if stream is None else stream
        self._terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        self._interval = TERMINAL_INTERVAL_S if self._terminal else LOG_INTERVAL_S
        self._lock = threading.Lock()
        self._start = self._last = time.monotonic()
        self._width = 0
        self._shown = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, count: int = 1) -> None:
        """``count`` more items are done."""
        with self._lock:
            self.done += count
            now = time.monotonic()
            # On a terminal the first item shows at once and the last one always.
            ends = self._terminal and (not self._shown or self.done >= self.total)
            if ends or now - self._last >= self._interval:
                self._last = now
                self._show(now)

    def close(self) -> None:
        """Ends the rewritten line, so that what is printed next starts on a line of its own."""
        with self._lock:
            self._end_line()

    def describe(self, elapsed_s: float) -> str:
        """E.g. ``checking STS: 12 of 39, 8 s, 18 s left``."""
        text = f"{self.label}: {self.done} of {self.total}, {duration(elapsed_s)}"
        if 0 < self.done < self.total:
            text += f", {time_left(elapsed_s, self.done, self.total)}"
        return text

    def _show(self, now: float) -> None:
        text = self.describe(now - self._start)
        self._shown = True
        if not self._terminal:
            self._write(text + "\n")
            return
        text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line could not be rewritten
        self._write("\r" + text.ljust(self._width))
        self._width = len(text)
        if self.done >= self.total:
            self._end_line()

    def _end_line(self) -> None:
        if self._terminal and self._shown:
            self._write("\n")
            self._shown = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (AttributeError, OSError, ValueError):  # no stream, or a closed one: the job itself goes on
            self._terminal, self._interval = False, float("inf")


def time_left(elapsed_s: float, done: int, total: int) -> str:
    """E.g. ``18 s left``, at the pace so far; ``done`` is at least 1."""
    return f"{duration(elapsed_s / done * (total - done))} left"


def duration(seconds: float) -> str:
    """E.g. ``8 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
