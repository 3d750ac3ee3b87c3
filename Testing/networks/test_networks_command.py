"""``teachformer networks`` as a user calls it."""

import json

import pytest
from test_network_counts import FULL_SIZE

KEYS = {
    "name", "role", "spatial_dims", "input_shape", "coarse_shape", "fine_shape", "parameters", "macs", "flops",
    "table1_parameters_millions", "table1_gmacs", "paper_parameters_millions", "paper_gmacs",
    "parameters_deviation_percent", "gmacs_deviation_percent",
}  # fmt: skip


def test_json(cli) -> None:  # type: ignore[no-untyped-def]
    done = cli("networks", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {(row["name"], row["spatial_dims"]): (row["parameters"], row["macs"]) for row in rows} == {
        key: counts[:2] for key, counts in FULL_SIZE.items()
    }
    for row in rows:
        assert set(row) == KEYS
        assert row["flops"] == 2 * row["macs"]
        assert row["role"] in ("teacher", "student", "baseline")
        assert row["input_shape"] == {2: [3, 384, 384], 3: [2, 144, 144, 144]}[row["spatial_dims"]]
        assert row["coarse_shape"][1:] == [n // 16 for n in row["input_shape"][1:]]
        assert row["fine_shape"][1:] == row["input_shape"][1:]
    light = next(row for row in rows if row["name"] == "swin_unetr_light" and row["spatial_dims"] == 3)
    assert light["coarse_shape"][0] == 96
    assert light["table1_gmacs"] == pytest.approx(74.676, abs=0.001)
    assert light["gmacs_deviation_percent"] == pytest.approx(-1.33, abs=0.01)


def test_table() -> None:
    from TeachFormerCore.commands.networks import format_table

    row = {
        "name": "ux_net", "role": "student", "input_shape": [2, 144, 144, 144], "coarse_shape": [384, 9, 9, 9],
        "fine_shape": [6, 144, 144, 144], "parameters": 5119568, "macs": 37765255968,
        "table1_parameters_millions": 5.118752, "table1_gmacs": 41.510239776, "paper_parameters_millions": 5.12,
        "paper_gmacs": 41.51, "parameters_deviation_percent": -0.0243, "gmacs_deviation_percent": 0.0006,
    }  # fmt: skip
    line = format_table([row]).splitlines()[2]
    for text in ("ux_net", "student", "2 x 144^3", "384 x 9^3", "5,119,568", "37.77", "5.119", "-0.02", "+0.00"):
        assert text in line
