"""SIGTERM and Ctrl+C, whatever the program is at: exit code 130 within two seconds, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen([sys.executable, *map(str, words)], env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def stopped(process: subprocess.Popen[str], number: signal.Signals, when: Callable[[], object]) -> str:
    """What it said on stderr, having ended as it should."""
    end = time.monotonic() + 200
    while not when():
        assert process.poll() is None, f"it ended too early: {process.communicate()}"
        assert time.monotonic() < end
        time.sleep(0.002)
    told = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, time.monotonic() - told < 2) == (130, True), said
    return said


WAITING = """
import signal, sys, time
from pathlib import Path
from TeachFormerCore.commands import main, models
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process of the background may ignore it
def run(arguments):
    try:
        Path(sys.argv[1]).touch()
        time.sleep(60)
    finally:
        Path(sys.argv[1]).unlink()
models.run = run
sys.exit(main(["models", "list"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_command_ends_in_order(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "begun"
    with start("-c", WAITING, file) as process:
        assert stopped(process, number, file.exists) == "teachformer: error: cancelled\n"
    assert not file.exists()


def test_the_handling_comes_before_what_takes_time() -> None:
    """Until it is there a signal ends the process as the system has it."""
    code = "import sys; before = set(sys.modules); import TeachFormerCore.commands; print(set(sys.modules) - before)"
    with start("-S", "-c", code) as process:
        loaded, _ = process.communicate(timeout=60)
    assert not {"argparse", "traceback", "pathlib", "socket"} & set(loaded.replace("'", " ").replace(",", " ").split())


def test_main_leaves_the_signals_of_its_caller_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from TeachFormerCore.commands import main

    before = signal.getsignal(signal.SIGTERM)
    assert main(["models", "check", "absent"]) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_demo_leaves_no_half_written_file(tiny_model: Path, tmp_path: Path) -> None:
    """The tiny model's field of view holds no phantom: its images are what is being written."""
    out = tmp_path / "out"
    with start("-m", "TeachFormerCore", "demo", "--model", tiny_model, "--output", out) as process:
        said = stopped(process, signal.SIGTERM, lambda: list(out.glob("*/.teachformer-*")))
    assert said.endswith("teachformer: error: cancelled\n")
    assert not list(out.glob("*/.*"))


def test_a_bench_ends_its_processes_and_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    children: list[int] = []

    def measuring() -> bool:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            children[:] = [int(word) for word in file.read().split()]
        commands = [Path(f"/proc/{pid}/cmdline") for pid in children]
        return any(b"--measure" in file.read_bytes() for file in commands if file.exists())

    if not Path("/proc/self/task").is_dir():
        pytest.skip("children are looked up in /proc")
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    words = ("-m", "TeachFormerCore", "bench", "--model", tiny_model, "--size", 32, "--device", "cpu")
    with start(*words, TMPDIR=str(scratch)) as process:
        stopped(process, signal.SIGTERM, measuring)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert list(scratch.iterdir()) == []
