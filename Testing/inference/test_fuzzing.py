"""Every file that a stranger can hand in, mutated: no traceback, no crash, no hang, no file outside the target.

A fixed sample each time, thousands in ``make test-full``. The mutations are functions of their seeds, so what is found
can be found again: ``fuzzing.judge(kind, fuzzing.mutate(...))``.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "fuzzing.py"
REPOSITORY = Path(__file__).parents[2]
IMAGES = ("nifti", "nifti.gz", "nrrd", "nrrd-raw", "mha", "mha-raw")
OTHERS = ("dicom", "card", "zip", "table", "state")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process can be limited on Linux")


def fuzz(kinds: tuple[str, ...], seeds: tuple[int, int], model: Path, folder: Path) -> None:
    target = folder / "target"
    target.mkdir()
    shutil.copytree(model, target / "model")
    before = {path for path in folder.rglob("*") if target not in path.parents}
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TEACHFORMER_MODELS": str(target / "models")}
    done = subprocess.run(
        [sys.executable, SCRIPT, ",".join(kinds), *map(str, seeds), target],
        capture_output=True, encoding="utf-8", errors="replace", env=environment, timeout=550,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{rows[-1:]} ended the process: {done.returncode} {done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr
    ended = [row for row in rows if "outcome" in row]
    assert [row for row in ended if row["outcome"] == "fault"] == []
    count = collections.Counter(row["kind"] for row in ended)
    assert count == dict.fromkeys(kinds, seeds[1] - seeds[0])
    assert {path for path in folder.rglob("*") if target not in path.parents} == before
    assert not list(target.rglob(".*")), "something half-made was left"


def test_a_sample_of_images(tiny_model: Path, tmp_path: Path) -> None:
    fuzz(IMAGES, (0, 60), tiny_model, tmp_path)


def test_a_sample_of_the_other_files(tiny_model: Path, tmp_path: Path) -> None:
    fuzz(OTHERS, (0, 60), tiny_model, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("kind", [*IMAGES, *OTHERS])
def test_thousands(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    fuzz((kind,), (1000, 2000 if kind in ("card", "zip") else 3000), tiny_model, tmp_path)


def test_whole_files_are_read(tiny_model: Path, tmp_path: Path) -> None:
    """What is mutated is right before: else everything would be refused for another reason."""
    code = """
import sys
from pathlib import Path
import fuzzing
folder = Path(sys.argv[1])
for kind, read in fuzzing.READERS.items():
    content = fuzzing.image_seed(kind, folder) if kind in fuzzing.IMAGES else fuzzing.other_seed(kind, folder)
    read(kind, content, folder)
    mutated = {fuzzing.mutate(content, fuzzing.random.Random(seed)) for seed in range(30)}
    assert len(mutated) > 25 and content not in mutated, kind
"""
    shutil.copytree(tiny_model, tmp_path / "target" / "model")
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{SCRIPT.parent}"}
    command = [sys.executable, "-c", code, str(tmp_path / "target")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
