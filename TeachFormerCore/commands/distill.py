"""``teachformer distill``: a student from frozen teachers, one typed configuration; the same run resumes."""

import argparse
from collections.abc import Sequence

from .train import run as train


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """As ``train``, with at least one teacher, and the options of the audit."""
    from ..errors import InputError
    from ..training.command_line import parse_config

    options = argparse.ArgumentParser(
        prog="teachformer distill",
        description="Besides the keys of the configuration below:",
        add_help=False,
        allow_abbrev=False,
    )
    options.add_argument("--audit", action="store_true", help="train nothing: measure each term's size and gradient")
    options.add_argument("--batches", type=int, default=1, metavar="N", help="batches that the audit looks at (1)")
    options.add_argument("--json", action="store_true", help="print the audit as an object instead of a table")
    chosen, rest = options.parse_known_args(argv)
    if {"-h", "--help"} & set(rest):
        print(options.format_help())
    chosen.config = parse_config("distill", rest)
    if not chosen.config.teachers:
        raise InputError("The configuration names no teachers: give 'teachers: [{run: NAME}]', or use 'train'.")
    if not chosen.audit and (chosen.json or chosen.batches != 1):
        raise InputError("--json and --batches belong to --audit: add it, or leave them out.")
    return chosen


def run(arguments: argparse.Namespace) -> int:
    """Trains or resumes, or audits the losses; the audit of a run is kept in its folder, for the report."""
    if not arguments.audit:
        return train(arguments)
    import json
    import sys
    from dataclasses import asdict

    from ..training.audit import audit, keep
    from ..training.audit_table import render

    made = audit(arguments.config, batches=arguments.batches)
    print(json.dumps(asdict(made), indent=1, allow_nan=False) if arguments.json else render(made))
    print(keep(made, arguments.config), file=sys.stderr)
    return 0
