"""``teachformer models``: list, check, import and remove model folders."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``list``, ``check``, ``import`` and ``remove``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,check,import,remove}")
    listing = actions.add_parser("list", help="the installed models")
    listing.add_argument("--json", action="store_true", help="the cards as a JSON list, by the names to call them by")
    check = actions.add_parser("check", help="verify a model folder: card, hashes, weights")
    check.add_argument("folder", type=Path, help="a model folder, or a model's name")
    importing = actions.add_parser("import", help="copy a model, checked, into the user's models folder")
    importing.add_argument("source", type=Path, help="a model folder, or a zip file of one")
    actions.add_parser("remove", help="remove an imported model").add_argument("name")


def run(arguments: argparse.Namespace) -> int:
    """Runs the action."""
    from ..inference import model_folder

    if arguments.action == "list":
        return _list(as_json=arguments.json)
    if arguments.action == "check":
        folder = model_folder.find_model(arguments.folder)
        card = model_folder.read_card(folder)
        if importlib.util.find_spec("torch"):
            network = model_folder.load_network(folder, card)
            weights = f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters"
        else:
            weights = "PyTorch, which would try the weights, is not installed"
        print(f"{folder}: {card['name']} {card['version']} is whole (hashes agree; {weights}).")
    elif arguments.action == "import":
        from ..inference.model_import import import_model

        print(f"Imported to {import_model(arguments.source)}.")
    else:
        print(f"Removed {model_folder.remove_model(arguments.name)}.")
    return 0


def _list(*, as_json: bool) -> int:
    """Lists the models; one that cannot be used is named on stderr, with exit code 1, and stops no other."""
    from ..errors import EXIT_SOME_FAILED, InputError
    from ..inference.card import CARD_FILE, read_card_file
    from ..inference.model_folder import model_folders

    cards, code = [], 0
    for folder in model_folders():
        try:
            # A model is used and removed by its folder's name, which a copy may have changed.
            cards.append(read_card_file(folder / CARD_FILE) | {"name": folder.name})
        except InputError as error:
            code = EXIT_SOME_FAILED
            print(f"teachformer: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps(cards, indent=1, ensure_ascii=False, allow_nan=False))
        return code
    rows = [("NAME", "SEGMENTS", "INPUTS", "DICE", "LICENCE", "DESCRIPTION")]
    for card in cards:
        score = card["accuracy"].get("dice")
        rows.append(
            (
                card["name"],
                ", ".join(label["name"] for label in card["labels"]),
                " + ".join(channel["name"] for channel in card["channels"]),
                f"{score:.2f}" if isinstance(score, int | float) else "-",
                str(card["training"].get("licence") or "-"),
                card["description"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]))
    return code
