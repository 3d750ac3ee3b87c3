"""``teachformer reproduce``: a finished run again from its manifest, and whether the same weights come out."""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and where the new one and its data lie."""
    parser.add_argument("run", metavar="RUN", help="a finished run, by name or folder")
    parser.add_argument("--into", metavar="RUN", help="the new run (default: the old name with _reproduced)")
    parser.add_argument("--data", metavar="DIR", help="where its data is, if not where it was")


def run(arguments: argparse.Namespace) -> int:
    """0 where the weights are the same bit for bit, 1 where they are not."""
    from ..errors import EXIT_SOME_FAILED
    from ..training.reproduce import differing_circumstances, reproduce, reproduction_config

    config = reproduction_config(arguments.run, into=arguments.into, data=arguments.data)
    notices = differing_circumstances(arguments.run)
    for notice in notices:
        print(f"notice: {notice}", file=sys.stderr)
    result = reproduce(arguments.run, config)
    if not result.differing:
        print(f"{result.repeated}: the weights of {result.original}, bit for bit")
        return 0
    print(
        f"{result.repeated}: not the weights of {result.original}: {len(result.differing)} tensors differ, by "
        f"{result.largest_difference:.3g} at most" + (f" ({'; '.join(notices)})" if notices else "")
    )
    return EXIT_SOME_FAILED
