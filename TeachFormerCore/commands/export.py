"""``teachformer export``: a finished run becomes a model folder, in the model list at once; or a model gets graphs."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, where to, and what only people know."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", help="the run, as in its configuration")
    source.add_argument(
        "--model",
        metavar="M",
        help="instead: name or folder of a model, copied as M_graphs with what --runtime asks for",
    )
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
    runtimes = [name.strip() for name in arguments.runtime.split(",") if name.strip()]
    if arguments.model:
        print(f"Exported to {_with_graphs(arguments, runtimes)}.")
        return 0
    from ..training.export import export_run

    folder = export_run(
        arguments.run,
        output=arguments.output,
        described=arguments.described,
        evaluation=arguments.evaluation,
        runtimes=runtimes,
    )
    print(f"Exported to {folder}.")
    return 0


def _with_graphs(arguments: argparse.Namespace, runtimes: list[str]) -> Path:
    from ..errors import InputError
    from ..inference.card import SCHEMA
    from ..inference.graphs import copy_with_graphs
    from ..inference.model_folder import find_model
    from ..paths import user_models_folder

    if not runtimes:
        raise InputError("--model needs --runtime openvino, onnx or openvino,onnx: that is what the copy is for.")
    if arguments.described or arguments.evaluation:
        raise InputError("--described and --evaluation belong to --run: a model's card is copied as it is.")
    model = find_model(arguments.model)
    name = arguments.output.name if arguments.output else f"{model.name}_graphs"
    words, fits = SCHEMA["name"]
    if not fits(name):
        raise InputError(
            f"The folder's name, {name!r}, becomes the model's and must be {words}: give another --output."
        )
    return copy_with_graphs(model, runtimes, arguments.output or user_models_folder() / name, name=name)
