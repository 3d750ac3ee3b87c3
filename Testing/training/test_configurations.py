"""Every committed configuration is one that can be trained; every script starts its command as Slicer starts it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from TeachFormerCore.networks import build_network
from TeachFormerCore.training.arms import make_jobs, parse_crossval
from TeachFormerCore.training.command_line import parse_config
from TeachFormerCore.training.config import TrainConfig

TRAINING = Path(__file__).parents[2] / "Training"
FILES = sorted((TRAINING / "configs").glob("*.yaml"))
SCRIPTS = {
    "train_teacher": "train",
    "distill_student": "distill",
    "cross_validate": "crossval",
    "reproduce_run": "reproduce",
    "write_report": "report",
}


BUILT: set[str] = set()  # networks that another file has too need not be built again


@cache
def configurations(file: Path) -> list[TrainConfig]:
    """Of a single training, or one per arm of a cross-validation on its first fold."""
    if "arms" not in yaml.safe_load(file.read_text(encoding="utf-8")):
        return [parse_config("train", ["--config", str(file)])]
    crossval = parse_crossval(["--config", str(file)])
    return [job.config for job in make_jobs(replace(crossval, folds=crossval.folds[:1]))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_committed_configuration_can_be_trained(file: Path) -> None:
    """Its keys are valid, its networks exist in its dimensions with its arguments, its splits have its folds."""
    for config in configurations(file):
        key = json.dumps([config.network, config.network_arguments, len(config.window), len(config.channels)])
        if key not in BUILT:
            BUILT.add(key)
            with torch.device("meta"):
                build_network(
                    config.network,
                    in_channels=len(config.channels),
                    out_channels=2,
                    spatial_dims=len(config.window),
                    image_size=config.window,
                    **config.network_arguments,
                )
        if config.splits and Path(config.splits).is_file():
            assert config.fold in range(len(json.loads(Path(config.splits).read_text(encoding="utf-8"))))


def test_there_is_one_for_every_dataset_with_the_papers_recipe() -> None:
    by_data: dict[str, list[TrainConfig]] = {}
    for file in FILES:
        for config in configurations(file):
            by_data.setdefault(config.data, []).append(config)
    wanted = {"STS_PETCT_MR", "LGG_2D", "Hippocampus", "HECKTOR21", "PICAI22", "PICAI22_2D", "BRATS19", "CHAOS_T1DUAL"}
    assert set(by_data) == wanted
    for name, batch in (("HECKTOR21", 2), ("PICAI22", 2), ("PICAI22_2D", 16)):
        for config in by_data[name]:
            recipe = (config.max_epochs, config.patience, config.batch_size, config.protocol)
            assert recipe == (100, 40, batch, "paper")
    families = {config.run.rpartition("/")[2].partition("_fold")[0] for config in by_data["STS_PETCT_MR"]}
    assert families >= {
        "h_denseformer", "unetr", "swin_unetr", "student", "student_from_h_denseformer", "student_from_all_paper",
        "student_from_all_balanced", "student_from_unetr_swin_unetr", "all_minus_eq1", "all_minus_eq2", "shuffled",
        "label_smoothing", "unet", "student_equal_time", "missu",
    }  # fmt: skip


def test_a_single_run_of_sts_is_a_job_of_its_cross_validation() -> None:
    """So that what was trained by itself need not be trained again."""
    jobs = {config.run: config for config in configurations(TRAINING / "configs" / "sts_crossval.yaml")}
    for file in FILES:
        if file.stem.startswith("sts_") and file.stem != "sts_crossval":
            (config,) = configurations(file)
            assert config == jobs[config.run], file


@pytest.mark.parametrize(("script", "command"), SCRIPTS.items())
def test_a_script_starts_its_command_and_slicer_exits_with_its_code(
    script: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for Slicer's module records the code; the options come after Slicer's "--"."""
    (tmp_path / "slicer").mkdir()
    (tmp_path / "slicer" / "__init__.py").write_text("")
    (tmp_path / "slicer" / "util.py").write_text(
        "import sys\ndef exit(code):\n    print('slicer', code)\n    sys.exit(0)"
    )
    file = TRAINING / f"{script}.py"
    # As Slicer runs a script: in one interpreter, __name__ is __main__, the folder of the script is not in sys.path.
    code = f"""if True:
        import sys, slicer.util
        sys.argv = [{str(file)!r}, "--", "--no_such_option", "1"]
        exec(compile(open({str(file)!r}).read(), {str(file)!r}, "exec"),
             {{"__name__": "__main__", "__file__": {str(file)!r}}})
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=300,
    )
    assert done.stdout.endswith("slicer 2\n"), done.stderr
    assert f"teachformer {command}" in done.stderr


def test_a_script_without_slicer_names_a_missing_package_with_code_3(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['jsonargparse'] = None")
    done = subprocess.run(
        [sys.executable, str(TRAINING / "train_teacher.py"), "--config", str(FILES[0])],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=300,
    )
    assert done.returncode == 3
    assert "'jsonargparse' is not installed" in done.stderr
