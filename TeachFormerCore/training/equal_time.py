"""An arm that gets another arm's wall-clock time instead of its steps.

``python -m TeachFormerCore.training.equal_time FOLDER RUN`` is the process of such a job: it measures the steps of both
trainings in turns, so that what else the machine does slows both alike, fixes the number of steps before the training
starts (``equal_time.json`` and the run's ``config.yaml``) and trains. From then on it is a run like any other.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..files import write_whole
from ..run_files import CONFIG_FILE, read_json, read_manifest
from .command_line import config_from
from .pace import measured_paces
from .run_folder import config_text, read_config, run_path

WANTED_FILE = "wanted.yaml"  # the configuration whose steps are not fixed yet
RECORD_FILE = "equal_time.json"


def fix_steps(folder: Path, other: str) -> Path:
    """Writes the configuration of a run folder, with as many steps as take the time of a finished run; its file."""
    file = folder / CONFIG_FILE
    if file.is_file():
        return file
    wanted = read_config(folder / WANTED_FILE)
    manifest = read_manifest(run_path(other))
    theirs, ours = measured_paces([config_from(manifest["config"]), wanted], every={}, rounds=2)
    steps = max(1, round(manifest["steps"] * theirs / ours))
    record = {
        "seconds_of": other,
        "its_steps": manifest["steps"],
        "its_seconds_per_step": theirs,
        "seconds_per_step": ours,
        "steps": steps,
    }
    write_whole(folder / RECORD_FILE, json.dumps(record, indent=1) + "\n")
    write_whole(file, config_text(replace(wanted, max_steps=steps, max_epochs=None)))
    (folder / WANTED_FILE).unlink()
    return file


def timed_by(folder: Path) -> str | None:
    """The run whose time a run folder got, if it got one's."""
    file = folder / RECORD_FILE
    record = read_json(file) if file.is_file() else {}
    return record.get("seconds_of") if isinstance(record, dict) else None


def main(argv: Sequence[str]) -> int:
    """Fixes the steps, then trains; the exit code of the command line."""
    from .. import commands
    from ..errors import as_teachformer_error

    try:
        file = fix_steps(Path(argv[0]), argv[1])
    except Exception as error:
        told = as_teachformer_error(error)
        print(f"teachformer: error: {told}", file=sys.stderr)
        return told.exit_code
    return commands.main(["train", "--config", str(file)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
