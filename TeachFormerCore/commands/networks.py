"""``teachformer networks``: the 14 rows of Teach-Former's Table 1, built and measured, beside what the paper says."""

import argparse
import json
from typing import Any

CHANNELS = {3: 2, 2: 3}
CLASSES = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")


def run(arguments: argparse.Namespace) -> int:
    rows = table_rows()
    print(json.dumps(rows, indent=1) if arguments.json else format_table(rows))
    return 0


def table_rows() -> list[dict[str, Any]]:
    """One row per network and number of dimensions, 3D first.

    The networks live on the meta device: shapes and counts are those of real ones, without memory or arithmetic.
    """
    import torch

    from ..networks import DEFAULT_IMAGE_SIZE, NETWORKS, build_network
    from ..networks.counting import measure

    rows = []
    for dims, channels in CHANNELS.items():
        for name, entry in NETWORKS.items():
            if dims not in entry.published:
                continue
            with torch.device("meta"):
                network = build_network(
                    name, in_channels=channels, out_channels=CLASSES, spatial_dims=dims, table1=True
                )
                image = torch.empty(1, channels, *DEFAULT_IMAGE_SIZE[dims])
            counts = measure(network, image)
            millions, gmacs = counts.table1_parameters / 1e6, counts.table1_operations / 1e9
            paper_millions, paper_gmacs = entry.published[dims]
            rows.append(
                {
                    "name": name,
                    "role": entry.role,
                    "spatial_dims": dims,
                    "input_shape": list(image.shape[1:]),
                    "coarse_shape": list(counts.coarse_shape),
                    "fine_shape": list(counts.fine_shape),
                    "parameters": counts.parameters,
                    "macs": counts.macs,
                    "flops": counts.flops,
                    "table1_parameters_millions": millions,
                    "table1_gmacs": gmacs,
                    "paper_parameters_millions": paper_millions,
                    "paper_gmacs": paper_gmacs,
                    "parameters_deviation_percent": 100 * (millions / paper_millions - 1),
                    "gmacs_deviation_percent": 100 * (gmacs / paper_gmacs - 1),
                }
            )
    return rows


def format_table(rows: list[dict[str, Any]]) -> str:
    """The rows for a person."""
    lines = [
        f"{'network':<20} {'role':<8} {'input':<16} {'coarse P':<16} {'fine Q':<16} {'parameters':>11} {'GMACs':>8}"
        f" | {'M':>7} {'paper':>6} {'%':>6} | {'G':>7} {'paper':>6} {'%':>6}"
    ]
    lines.append("-" * len(lines[0]))
    for row in rows:
        shapes = (format_shape(row[key]) for key in ("input_shape", "coarse_shape", "fine_shape"))
        lines.append(
            f"{row['name']:<20} {row['role']:<8} {' '.join(f'{shape:<16}' for shape in shapes)}"
            f" {row['parameters']:>11,} {row['macs'] / 1e9:>8.2f}"
            f" | {row['table1_parameters_millions']:>7.3f} {row['paper_parameters_millions']:>6.2f}"
            f" {row['parameters_deviation_percent']:>+6.2f}"
            f" | {row['table1_gmacs']:>7.2f} {row['paper_gmacs']:>6.2f} {row['gmacs_deviation_percent']:>+6.2f}"
        )
    lines += [
        "",
        "Left: every parameter, and the multiply-accumulates of convolutions and matrix products, measured now.",
        "Right: millions of parameters and 10^9 operations by the rule of Teach-Former's Table 1, which counts",
        "transposed convolutions several times and attention not at all, beside the paper's figures.",
    ]
    return "\n".join(lines)


def format_shape(shape: list[int]) -> str:
    """``2 x 144^3`` for [2, 144, 144, 144]."""
    channels, *size = shape
    spatial = f"{size[0]}^{len(size)}" if len(set(size)) == 1 else " x ".join(map(str, size))
    return f"{channels} x {spatial}"
