"""The plan of a case's memory: by hand for one rung, and against what a process really took."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.devices import available_devices, free_memory
from TeachFormerCore.inference import memory_plan
from TeachFormerCore.inference.memory_plan import plan_memory
from TeachFormerCore.inference.runtimes.interface import Rung

REPOSITORY = Path(__file__).parents[2]


class Runtime:
    """As much of one as a plan asks for."""

    def __init__(self, device: str) -> None:
        self.device, self.bytes_per_voxel = device, 100


def rung(device: str, keeps: str, batch: int = 1) -> Rung:
    return Rung(words="", runtime=Runtime(device), window=(10, 10, 10), batch=batch, keeps=keeps)


def plan(one: Rung, image: tuple[int, ...] = (20, 10, 10)) -> memory_plan.MemoryPlan:
    return plan_memory(one, image=image, channels=2, classes=3, reference=(100, 100, 10))


def test_by_hand() -> None:
    made = plan(rung("cpu", "cpu", batch=2))
    assert made.network == 2 * 1000 * 100
    # 7 maps (2 channels, 3 classes, 2 of attention) of 2000 voxels, their weights, and twice those of 2 windows
    assert made.blending == 4 * (2000 * 7 + 2000 + 2 * 2000 * 7)
    # the mask, a map that is made, and two that are written, each of them twice
    assert made.results == (1 + 4 * 5) * 100_000
    assert made.needs() == {"cpu": max(made.network + made.blending, made.results + made.blending)}


def test_an_image_smaller_than_the_window_counts_as_the_window() -> None:
    assert plan(rung("cpu", "cpu"), (5, 5, 5)).blending == 4 * 3 * 1000 * 7


def test_a_gpu_and_the_cpu_are_counted_apart() -> None:
    there, here = plan(rung("cuda:0", "cuda:0")), plan(rung("cuda:0", "cpu"))
    assert there.needs()["cuda:0"] == there.network + there.blending
    assert here.needs()["cuda:0"] == here.network
    assert str(there).startswith("needs about ")
    assert " on cuda:0" in str(there)


def test_it_fits_with_a_tenth_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(rung("cpu", "cpu"))
    needed = made.computing()["cpu"]
    for free, fits in ((needed, False), (int(needed / 0.89), True), (None, True)):
        monkeypatch.setattr(memory_plan, "free_memory", lambda device, free=free: free)
        assert made.fits() is fits


def test_the_memory_of_a_parent_is_not_counted_as_the_child_s() -> None:
    """What ``getrusage`` tells on Linux begins with that of the process that started this one."""
    code = "from TeachFormerCore.devices import peak_memory; print(peak_memory())"
    filling = f"import subprocess, sys; kept = b'1' * 500_000_000; subprocess.run([sys.executable, '-c', {code!r}])"
    told = subprocess.check_output([sys.executable, "-c", filling], encoding="utf-8", cwd=REPOSITORY)
    if told.strip() != "None":
        assert 1e6 < int(told) < 250e6


def test_this_machine_s_devices_are_named_with_their_memory() -> None:
    devices = available_devices()
    assert devices[-1].name == "cpu"
    assert "core" in devices[-1].description
    free = free_memory("cpu")
    assert free is None or 2**20 < free < 2**50


LARGE_CT = """
import json, sys
from pathlib import Path
from TeachFormerCore.devices import peak_memory
from TeachFormerCore.inference.cancellation import Cancellation
from TeachFormerCore.inference.case import Job, segment_case
from TeachFormerCore.inference.outputs import Outputs
from TeachFormerCore.inference import predictor
model, folder = sys.argv[1], Path(sys.argv[2])
plans, planned = [], predictor.plan_memory
predictor.plan_memory = lambda *given, **more: plans.append(planned(*given, **more)) or plans[-1]
images = ("label", "attention_fine", "attention_coarse", "uncertainty")
outputs = Outputs(statistics=folder / "s.json", **{name: folder / f"{name}.nii.gz" for name in images})
job = Job(inputs=(f"CT={folder / 'ct.nii.gz'}",), outputs=outputs, model=model, device="cpu", runtime="torch")
with Cancellation() as cancellation:
    segment_case(job, cancellation)
print(json.dumps({"peak": peak_memory(), "needs": plans[0].needs()["cpu"]}))
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="the peak memory of a process is asked of resource")
def test_a_large_ct_takes_at_most_4_gb(tiny_model: Path, tmp_path: Path) -> None:
    """512 x 512 x 600 voxels, from the file to every written map, with what Python and PyTorch take."""
    card = json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))
    card |= {
        "field_of_view_mm": None,
        "needs_region": False,
        "channels": [card["channels"][0], card["channels"][1] | {"optional": True}],
    }
    (tiny_model / "model.json").write_text(json.dumps(card), encoding="utf-8")
    body = np.full((600, 512, 512), -1000, np.int16)
    body[:, 100:420, 80:440] = 40
    body[280:320, 200:260, 200:260] = 120
    ct = sitk.GetImageFromArray(body)
    ct.SetSpacing((0.8, 0.8, 1.0))
    sitk.WriteImage(ct, str(tmp_path / "ct.nii.gz"), True)
    del body, ct
    done = subprocess.run(
        [sys.executable, "-c", LARGE_CT, tiny_model, tmp_path],
        capture_output=True,
        encoding="utf-8",
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sitk.ReadImage(str(tmp_path / "label.nii.gz")).GetSize() == (512, 512, 600)
    assert told["peak"] <= 4e9
    # The plan leaves out the images and the program.
    assert told["needs"] <= told["peak"] <= told["needs"] + 2e9
