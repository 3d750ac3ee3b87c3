"""A batch on a Dask cluster: a real one of two processes, one of which is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.commands import main
from TeachFormerCore.inference.batch_state import DONE, read_states

REPOSITORY = Path(__file__).parents[2]
CLUSTER = """
import os, sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster:
        pids = [nanny.process.process.pid for nanny in cluster.workers.values()]
        print(cluster.scheduler_address, *pids, flush=True)
        sys.stdin.read()
"""


def states(folder: Path) -> dict[str, str]:
    return {name: record.state for name, record in read_states(folder)[1].items()}


def masks(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in sorted(folder.glob("*.nii.gz"))}


@pytest.mark.full
def test_a_worker_killed_on_the_way_loses_nothing(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    images = tmp_path / "in"
    images.mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        for channel, values in enumerate((random.normal(-400, 300, (40,) * 3), random.gamma(2, 1.5, (40,) * 3))):
            image = sitk.GetImageFromArray(values.astype(np.float32))
            image.SetSpacing((4.0,) * 3)
            sitk.WriteImage(image, str(images / f"case{number:02d}_{channel:04d}.nii.gz"))
    (images / "case05_0001.nii.gz").write_bytes(b"no image")
    call = ["--model", str(tiny_model), "--input", str(images), "--runtime", "torch", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    (tmp_path / "cluster.py").write_text(CLUSTER)
    pipes = {"stdout": subprocess.PIPE, "encoding": "utf-8", "env": environment}
    with subprocess.Popen([sys.executable, tmp_path / "cluster.py"], stdin=subprocess.PIPE, **pipes) as cluster:
        assert cluster.stdout is not None
        address, first, *_ = cluster.stdout.readline().split()
        out = tmp_path / "out"
        command = [sys.executable, "-m", "TeachFormerCore", "batch", *call, "--output", out, "--scheduler", address]
        with subprocess.Popen(command, **pipes) as process:
            while process.poll() is None and not states(out):
                time.sleep(0.01)
            os.kill(int(first), signal.SIGKILL)
            assert len(states(out)) < 12, "it was killed too late"
            said, _ = process.communicate(timeout=300)
        cluster.stdin.close()  # type: ignore[union-attr]
        cluster.wait(60)
    assert process.returncode == 1, said
    found = states(out)
    assert len(found) == 12
    assert [name for name, state in found.items() if state != DONE] == ["case05"]
    lines = [json.loads(line) for line in (out / "state.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 13, "a case was noted twice"
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert (summary["done"], summary["failed"], summary["open"]) == (11, 1, 0)
    alone = tmp_path / "alone"
    assert main(["batch", *call, "--output", str(alone)]) == 1
    for name, mask in masks(alone).items():
        np.testing.assert_array_equal(mask, masks(out)[name])


def test_no_scheduler_is_one_sentence(tiny_model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("distributed")
    from TeachFormerCore.inference import dask_batch

    monkeypatch.setattr(dask_batch, "CONNECT_SECONDS", 1)
    (tmp_path / "cases.csv").write_text("case,CT,PET\na,c.nii,p.nii\n")
    call = ["--input", str(tmp_path / "cases.csv"), "--output", str(tmp_path / "out"), "--model", str(tiny_model)]
    assert main(["batch", *call, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in said
    assert "Traceback" not in said


def test_without_dask_it_is_exit_3(tiny_model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    (tmp_path / "cases.csv").write_text("case,CT,PET\na,c.nii,p.nii\n")
    call = ["--input", str(tmp_path / "cases.csv"), "--output", str(tmp_path / "out"), "--model", str(tiny_model)]
    assert main(["batch", *call, "--scheduler", "tcp://127.0.0.1:9"]) == 3
    assert "TeachFormer[dask]" in capsys.readouterr().err
