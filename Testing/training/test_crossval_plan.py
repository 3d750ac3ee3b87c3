"""What a cross-validation costs is known before it starts; an arm may get another one's time."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from untrained import MANIFEST, TEACHER

from TeachFormerCore.errors import InputError
from TeachFormerCore.training import equal_time, plan
from TeachFormerCore.training.arms import Job, crossval_from, make_jobs
from TeachFormerCore.training.config import TrainConfig
from TeachFormerCore.training.job_state import check_job, claim_job
from TeachFormerCore.training.pace import measured_paces, this_device
from TeachFormerCore.training.run_folder import config_text, run_path

Make = Callable[..., TrainConfig]


@pytest.fixture
def jobs(config: Make) -> Callable[..., list[Job]]:
    """Jobs of arms on fold 0, in fp32."""

    def make(arms: dict[str, Any], **base: Any) -> list[Job]:
        described = asdict(config(run="cv", precision="fp32", **base))
        return make_jobs(crossval_from(described, folds=[0], seeds=[0], arms=arms))

    return make


def finish(config: TrainConfig, *, pace: float, teachers: list[dict[str, Any]] | None = None) -> None:
    """A finished run as its manifest tells it, on this machine."""
    folder = run_path(config.run)
    folder.mkdir(parents=True, exist_ok=True)
    kind, name = this_device(config)
    content = MANIFEST | {
        "config": json.loads(json.dumps(asdict(config))),
        "teachers": [TEACHER | {"network": teacher} for teacher in teachers or []],
        "device": kind,
        "device_name": name,
        "steps": config.max_steps,
        "seconds_per_step": pace,
    }
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "config.yaml").write_text(config_text(config), encoding="utf-8")


def test_the_plan_takes_the_pace_of_finished_runs(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same network, size, teachers and device; only what none of them tells is measured."""
    wide = {"filters": 4, "transformer_depth": 4}
    arms = {
        "wide": {"network_arguments": wide},
        "student": {},
        "long": {"max_steps": 600},
        "taught": {"teachers": ["wide"]},
        "equal": {"seconds_of": "taught"},
        "large": {"batch_size": 4},
    }
    made = {job.arm: job for job in jobs(arms, max_steps=100)}
    finish(made["wide"].config, pace=0.25)
    finish(replace(made["student"].config, run="elsewhere"), pace=0.5)
    saved = wide | {"deep_supervision": False}
    teacher = {"name": "h_denseformer_light", "arguments": saved}
    finish(replace(made["taught"].config, run="taught_elsewhere"), pace=2.0, teachers=[teacher])
    asked: list[str] = []

    def measured(configs: list[TrainConfig], **_: Any) -> list[float]:
        asked.extend(config.run for config in configs)
        return [4.0] * len(configs)

    monkeypatch.setattr(plan, "measured_paces", measured)
    monkeypatch.setattr(plan, "_saved_arguments", lambda config: saved)
    planned = {each.job.arm: each for each in plan.plan_jobs(list(made.values()))}
    assert asked == [made["large"].run]
    assert (planned["wide"].source, planned["wide"].seconds) == ("done", 0)
    assert {arm: each.seconds for arm, each in planned.items() if arm != "wide"} == {
        "student": 50, "long": 300, "taught": 200, "equal": 200, "large": 400
    }  # fmt: skip
    assert planned["equal"].steps == 400  # of 0.5 s, as long as 100 of 2 s
    text = plan.plan_table(list(made.values()), parallel=3)
    assert "5 of 6 jobs to do: 19 min 10 s one after the other" in text
    assert "with 3 at once at least 6 min 40 s" in text  # the longest chain; a third of the sum is 6 min 23 s
    assert "6 min 40 s the longest chain" in text


def test_what_is_measured_leaves_nothing_behind(
    jobs: Callable[..., list[Job]], capsys: pytest.CaptureFixture[str]
) -> None:
    made = {job.run: job.config for job in jobs({"wide": {}, "taught": {"teachers": ["wide"]}})}
    runs = os.environ["TEACHFORMER_RUNS"]
    paces = measured_paces([made["cv/taught_fold0_seed0"]], every=made)
    assert 1e-3 < paces[0] < 60
    assert os.environ["TEACHFORMER_RUNS"] == runs
    assert not Path(runs).exists()
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="neither finished nor part"):
        measured_paces([made["cv/taught_fold0_seed0"]], every={})


def test_an_arm_gets_anothers_seconds_once_and_for_all(
    jobs: Callable[..., list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 steps of 3 s against steps of 0.75 s: 400 steps, fixed before the training and kept by whoever goes on."""
    other, timed = jobs({"equal": {"seconds_of": "other"}, "other": {"batch_size": 4}}, max_steps=100)
    assert timed.after == (other.run,)
    finish(other.config, pace=9.0)  # what it took then counts less than what both take now
    arguments = claim_job(timed)
    assert arguments == ["-m", "TeachFormerCore.training.equal_time", str(run_path(timed.run)), other.run]
    monkeypatch.setattr(equal_time, "measured_paces", lambda configs, **_: [3.0, 0.75])
    file = equal_time.fix_steps(Path(arguments[2]), arguments[3])
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["max_steps"] == 400
    record = json.loads((file.parent / "equal_time.json").read_text(encoding="utf-8"))
    assert (record["its_steps"], record["steps"]) == (100, 400)

    monkeypatch.setattr(equal_time, "measured_paces", lambda configs, **_: [1.0, 1.0])
    assert equal_time.fix_steps(file.parent, other.run) == file
    check_job(timed)
    again = claim_job(timed)
    assert again[:3] == ["-m", "TeachFormerCore", "train"]
    assert yaml.safe_load(Path(again[-1]).read_text(encoding="utf-8"))["max_steps"] == 400
