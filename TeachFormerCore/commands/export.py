"""``teachformer export``: a finished run becomes a model folder, in the model list at once."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, where to, and what only people know."""
    parser.add_argument("--run", required=True, help="the run, as in its configuration")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to make (default: in the user's models folder)"
    )
    parser.add_argument(
        "--described", type=Path, metavar="FILE.json", help="name, description, codes, intended use ..."
    )
    parser.add_argument(
        "--evaluation", type=Path, metavar="DIR", help="output of 'teachformer evaluate' on the val cases, for the card"
    )
    parser.add_argument(
        "--runtime",
        default="",
        metavar="LIST",
        help="openvino, onnx or openvino,onnx: also export graphs, which these compute faster and without PyTorch",
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes the model folder and says where."""
    from ..training.export import export_run

    folder = export_run(
        arguments.run,
        output=arguments.output,
        described=arguments.described,
        evaluation=arguments.evaluation,
        runtimes=[name.strip() for name in arguments.runtime.split(",") if name.strip()],
    )
    print(f"Exported to {folder}.")
    return 0
