"""Progress: one rewritten line on a terminal, few lines in a log, the time left by proportion."""

import io
from concurrent.futures import ThreadPoolExecutor

import pytest

from TeachFormerCore import progress as module
from TeachFormerCore.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_in_ten_seconds(clock):
    log = io.StringIO()
    progress = Progress(40, "checking", log)
    for _ in range(40):
        clock[0] += 3
        progress.advance()
    progress.close()
    assert log.getvalue().splitlines() == [
        f"checking: {4 * n} of 40, {duration(12 * n)}, {duration(120 - 12 * n)} left" for n in range(1, 10)
    ] + ["checking: 40 of 40, 2 min 00 s"]


def test_a_short_job_leaves_no_line_in_a_log(clock):
    log = io.StringIO()
    with Progress(3, "checking", log) as progress:
        for _ in range(3):
            clock[0] += 1
            progress.advance()
    assert log.getvalue() == ""


def test_a_terminal_line_is_rewritten_and_ended(clock):
    terminal = Terminal()
    progress = Progress(4, "checking", terminal)
    for _ in range(4):
        clock[0] += 2
        progress.advance()
    assert terminal.getvalue().split("\r") == [
        "",
        "checking: 1 of 4, 2 s, 6 s left",
        "checking: 2 of 4, 4 s, 4 s left",
        "checking: 3 of 4, 6 s, 2 s left",
        "checking: 4 of 4, 8 s          \n",  # padded over the longer line before
    ]
    progress.close()
    assert terminal.getvalue().count("\n") == 1


def test_a_job_that_stops_early_ends_its_line(clock):
    terminal = Terminal()

    def work() -> None:
        with Progress(4, "checking", terminal) as progress:
            progress.advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert terminal.getvalue().endswith("\n")


def test_a_terminal_is_not_flooded(clock):
    terminal = Terminal()
    progress = Progress(10_000, "checking", terminal)
    for _ in range(10_000):
        clock[0] += 0.001
        progress.advance()
    assert terminal.getvalue().count("\r") <= 102


def test_many_threads(clock):
    progress = Progress(500, "checking", io.StringIO())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: progress.advance(), range(500)))
    assert progress.done == 500


def test_a_closed_stream_does_not_stop_the_job(clock):
    terminal = Terminal()
    progress = Progress(4, "checking", terminal)
    terminal.close()
    for _ in range(4):
        clock[0] += 20
        progress.advance()
    progress.close()
    assert progress.done == 4


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
