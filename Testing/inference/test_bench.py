"""``teachformer bench``: the case it makes, the rows it measures, the page it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TeachFormerCore.commands.bench import as_page, sections_of
from TeachFormerCore.data.grid import Grid
from TeachFormerCore.data.image import voxels
from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.benchmark import STAGES, measure, write_case
from TeachFormerCore.inference.inputs import read_inputs
from TeachFormerCore.inference.model_folder import read_card
from TeachFormerCore.inference.runtimes import Candidate, agreement

TORCH = Candidate(name="torch", device="cpu", precision="fp32", expected_seconds=1.0)


def test_the_case_fills_the_grid_up_to_the_field_of_view(tiny_model: Path, tmp_path: Path) -> None:
    card = read_card(tiny_model) | {"field_of_view_mm": [200.0, 120.0, 200.0]}
    files = write_case(card, 40, tmp_path)
    images = read_inputs([f"{name}={file}" for name, file in files.items()], card).images
    for image in images.values():
        assert image.GetSize() == (40, 30, 40)
        assert image.GetSpacing() == (4.0, 4.0, 4.0)
    ct = voxels(images["CT"])
    assert images["CT"].GetPixelID() == sitk.sitkInt16
    outer = np.concatenate([ct[0].ravel(), ct[-1].ravel()])
    assert (outer > -200).mean() > 0.2  # mirrored, not padded with air


def test_a_case_as_scanned_covers_the_same_space_in_a_scanner_s_voxels(tiny_model: Path, tmp_path: Path) -> None:
    card = read_card(tiny_model) | {"field_of_view_mm": [200.0, 120.0, 200.0]}
    files = write_case(card, 40, tmp_path, as_scanned=True)
    images = read_inputs([f"{name}={file}" for name, file in files.items()], card).images
    assert images["CT"].GetSize() == (160, 120, 80)
    assert images["CT"].GetSpacing() == (1.0, 1.0, 2.0)
    assert images["PET"].GetSize() == (40, 30, 80)
    assert images["PET"].GetSpacing() == (4.0, 4.0, 2.0)
    (low, high), (pet_low, pet_high) = (Grid.of(image).bounds() for image in images.values())
    np.testing.assert_allclose([pet_low, pet_high], [low, high], atol=1e-4)


def test_a_model_without_a_field_of_view_gets_the_whole_case(tiny_model: Path, tmp_path: Path) -> None:
    files = write_case(read_card(tiny_model) | {"field_of_view_mm": None}, 24, tmp_path)
    assert all(sitk.ReadImage(str(file)).GetSize() == (24, 24, 24) for file in files.values())


def test_a_measurement_has_every_stage_and_the_mask(tiny_model: Path, tmp_path: Path) -> None:
    card = read_card(tiny_model)
    pairs = [f"{name}={file}" for name, file in write_case(card, 32, tmp_path).items()]
    row = measure(TORCH, tiny_model, pairs, tmp_path / "mask.nii.gz", 2)
    assert all(row[stage] >= 0 for stage in (*STAGES, "open", "total", "processor_seconds"))
    assert row["network"] > 0
    assert row["fastest"] <= row["total"] <= row["slowest"]
    assert row["total"] >= max(row[stage] for stage in STAGES)
    assert sitk.ReadImage(str(tmp_path / "mask.nii.gz")).GetSize() == (32, 32, 32)
    key = agreement.memory_key(card, name="torch", device="cpu", precision="fp32")
    known = agreement.remembered(key)
    assert known
    assert known.dice == 1.0


def test_the_page_tells_ratios_and_what_was_not_measured() -> None:
    row = {**dict.fromkeys(("open", *STAGES, "processor_seconds"), 0.5), "total": 2.0, "peak_bytes": 1_500_000_000}
    row |= {"fastest": 1.9, "slowest": 2.25}
    told = {
        "date": "2030-01-01",
        "devices": "A processor, 2 cores",
        "threads": 2,
        "versions": {"torch": "9", "monai": None},
        "models": [
            {
                "model": "m",
                "version": "1",
                "description": "about",
                "image_size": [32, 32, 32],
                "images": {"CT": "40 x 40 x 40 voxels of 3 x 3 x 3 mm"},
                "rows": [
                    row
                    | {
                        "way": "plain",
                        "dice_to_torch_fp32": None,
                        "times_as_fast": 1.0,
                        "times_as_fast_by_processor": 1.0,
                    },
                    row
                    | {
                        "way": "torch bf16 on cpu",
                        "dice_to_torch_fp32": 0.9995,
                        "times_as_fast": 3.25,
                        "times_as_fast_by_processor": 4.0,
                    },
                ],
                "refused": ["onnx fp32 on cpu: it is not installed."],
                "cold": {"runtime": "torch bf16", "seconds": 3.0, "processor_seconds": 2.5},
            }
        ],
    }
    page = as_page(told)
    assert "monai" not in page
    assert "\n## A processor, 2 cores\n\n2030-01-01; 2 threads; torch 9.\n\n### m 1\n" in page
    stages = 6 * "0.50 | "
    assert f"| torch bf16 on cpu | {stages}2.00 (1.90-2.25) | 0.50 | 1.50 GB | 0.9995 | 3.2 | 4.0 |" in page
    assert "CT: 40 x 40 x 40 voxels of 3 x 3 x 3 mm" in page
    assert "25% (torch bf16 on cpu)" in page
    assert "Not measured: onnx fp32 on cpu: it is not installed." in page


def test_the_page_keeps_what_it_says_of_other_machines(tmp_path: Path) -> None:
    page = tmp_path / "PERFORMANCE.md"
    told: dict = {"date": "2030-01-01", "devices": "One, 2 cores", "threads": 2, "versions": {}, "models": []}
    first = as_page(told)
    page.write_text(first, encoding="utf-8")
    assert as_page(told, sections_of(page)) == first
    page.write_text(as_page(told | {"devices": "Other, 4 cores"}, sections_of(page)), encoding="utf-8")
    again = as_page(told | {"date": "2030-01-02"}, sections_of(page))
    assert again.startswith(first.partition("\n## ")[0])
    assert [part.split("\n")[0] for part in again.split("\n## ")[1:]] == ["One, 2 cores", "Other, 4 cores"]
    assert again.count("2030-01-01") == again.count("2030-01-02") == 1
    page.write_text("# My notes\n\n## A\n", encoding="utf-8")
    with pytest.raises(InputError, match="no page of 'teachformer bench'"):
        sections_of(page)


@pytest.mark.full
def test_the_command_measures_every_runtime_and_writes_the_page(cli, tiny_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "PERFORMANCE.md"
    done = cli(
        "bench", "--model", tiny_model, "--size", 32, "--repeats", 1, "--device", "cpu", "--output", page, "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    ways = {row["way"]: row for row in told["models"][0]["rows"]}
    assert {"plain", "openvino fp32 on cpu", "onnx fp32 on cpu", "torch fp32 on cpu"} <= set(ways)
    assert ways["torch fp32 on cpu"]["dice_to_torch_fp32"] == 1.0
    assert ways["plain"]["times_as_fast"] == 1.0
    assert told["models"][0]["cold"]["seconds"] > 0
    assert told["models"][0]["images"]["CT"].endswith("voxels of 1 x 1 x 2 mm")
    assert page.read_text(encoding="utf-8").startswith("# Speed and memory, measured")


def test_wrong_numbers_are_refused(cli) -> None:
    done = cli("bench", "--size", 3)
    assert done.returncode == 2
    assert "--size must be at least 16" in done.stderr
