"""Data-parallel training: two processes on gloo give what one process gives, within rounding."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from TeachFormerCore.errors import InputError
from TeachFormerCore.training.config import (
    DistillationConfig,
    LossConfig,
    OptimiserConfig,
    TeacherConfig,
    TrainConfig,
)
from TeachFormerCore.training.distributed import World, check_network, join_world
from TeachFormerCore.training.train import train
from TeachFormerCore.training.views import EpochOrder

Make = Callable[..., TrainConfig]


def test_the_shares_of_two_processes_are_the_batches_of_one() -> None:
    cases = [f"P{number}" for number in range(11)]

    def order(batch: int, world: World | None = None) -> list[tuple[int, str]]:
        sampler = EpochOrder(cases, seed=3, batch_size=batch, first_epoch=2, world=world)
        assert len(sampler) == len(list(sampler))
        return list(sampler)

    whole = order(4)
    first, second = (order(4, World(rank=rank, size=2)) for rank in (0, 1))
    assert len(whole) == 8
    for batch in range(2):
        shares = first[2 * batch : 2 * batch + 2] + second[2 * batch : 2 * batch + 2]
        assert shares == whole[4 * batch : 4 * batch + 4]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch_size": 3}, "cannot be divided by 2"),
        ({"loss": LossConfig(whole_batch_dice=True)}, "needs the whole batch"),
        (
            {"teachers": [TeacherConfig(run="t")], "distillation": DistillationConfig(shuffle_teachers=True)},
            "shuffle_teachers needs the whole batch",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(
    config: Make, monkeypatch: pytest.MonkeyPatch, changes: dict, reason: str
) -> None:
    assert join_world(config(**changes)) == World()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=reason):
        join_world(config(**changes))


def test_batch_normalisation_on_processors_is_refused() -> None:
    network, cpu = torch.nn.Sequential(torch.nn.BatchNorm3d(2)), torch.device("cpu")
    check_network(network, cpu, World())
    check_network(network, torch.device("cuda"), World(size=2))
    with pytest.raises(InputError, match="batch normalisation, which is shared among GPUs only"):
        check_network(network, cpu, World(size=2))


@pytest.mark.full
@pytest.mark.parametrize("taught", [False, True])
def test_two_processes_give_the_weights_of_one(config: Make, tmp_path: Path, taught: bool) -> None:
    """A network without dropout, and an optimiser that does not blow rounding up as Adam's first steps do."""
    network = {"network": "ux_net", "network_arguments": {"widths": (4, 8, 12, 16), "hidden_size": 16}}
    equal = {**network, "max_steps": 6, "check_every": 1, "patience": 50, "precision": "fp32", "batch_size": 2}
    equal["optimiser"] = OptimiserConfig(name="sgd", learning_rate=1e-2)
    if taught:  # what draws teachers and balances their terms looks at the batch as a whole
        runs = [train(config(run=str(tmp_path / f"teacher{n}"), seed=n, **network, max_steps=2)) for n in range(2)]
        equal["teachers"] = [TeacherConfig(run=str(run)) for run in runs]
        equal["distillation"] = DistillationConfig(mode="balanced", balancing="gradient", drop_teacher=0.5)
    one = train(config(run=str(tmp_path / "one"), **equal))
    file = tmp_path / "two.yaml"
    two = tmp_path / "two"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config(run=str(two), **equal))))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "TeachFormerCore", "train", "--config", str(file)],
        capture_output=True,
        encoding="utf-8",
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 steps, Dice") == 1  # one of the two tells
    assert json.loads((two / "manifest.json").read_text(encoding="utf-8"))["processes"] == 2
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, two))
    for name, value in ours.items():
        # The balance multiplies rounding by its scales; a share of its own per process was 0.03 and more.
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=2e-4 if taught else 2e-5)
    figures = []
    for folder in (one, two):
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as stream:
            figures.append([{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)])
    assert len(figures[0]) == len(figures[1]) > 1
    for mine, other in zip(*figures, strict=True):
        assert other == pytest.approx(mine, rel=1e-3)
