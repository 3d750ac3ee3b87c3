"""``teachformer train``: one network from one typed configuration; the same run resumes."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The configuration from ``--config`` with any key overridden; ``--print_config`` shows what results."""
    from ..training.command_line import parse_config

    return argparse.Namespace(config=parse_config("train", argv))


def run(arguments: argparse.Namespace) -> int:
    """Trains, or resumes, and says where the run lies."""
    from ..run_files import read_manifest
    from ..training.train import train

    folder = train(arguments.config)
    if os.environ.get("RANK", "0") != "0":  # torchrun started several: the first one tells
        return 0
    manifest = read_manifest(folder)
    score = manifest["val_dice"]
    patients = len(manifest["patients"]["validation"])
    if not patients:
        result = "no val cases"
    else:
        dice = "no Dice (nothing to find, and nothing found)" if score is None else f"Dice {score:.4f}"
        result = f"{dice} on {patients} val patients"
    print(f"{Path(folder)}: {manifest['steps']} steps, {result} (model grid, see per_case.csv)")
    return 0
