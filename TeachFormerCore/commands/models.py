"""``teachformer models``: list, check, import and remove model folders."""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``list``, ``check``, ``import`` and ``remove``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,check,import,remove}")
    listing = actions.add_parser("list", help="the installed models")
    listing.add_argument("--json", action="store_true", help="the cards as a JSON list")
    for name, text in (
        ("check", "verify a model folder: card, hashes, weights"),
        ("import", "copy a model folder into the user's models folder"),
    ):
        actions.add_parser(name, help=text).add_argument("folder", type=Path, help="a model folder")
    actions.add_parser("remove", help="remove an imported model").add_argument("name")


def run(arguments: argparse.Namespace) -> int:
    """Runs the action."""
    from ..inference import model_folder

    if arguments.action == "list":
        return _list(as_json=arguments.json)
    if arguments.action == "check":
        folder = model_folder.find_model(arguments.folder)
        card = model_folder.read_card(folder)
        network = model_folder.load_network(folder, card)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        print(f"{folder}: {card['name']} {card['version']} is whole ({parameters:,} parameters, hashes agree).")
    elif arguments.action == "import":
        print(f"Imported to {model_folder.import_model(arguments.folder)}.")
    else:
        print(f"Removed {model_folder.remove_model(arguments.name)}.")
    return 0


def _list(*, as_json: bool) -> int:
    from ..inference.card import CARD_FILE, read_card_file
    from ..inference.model_folder import model_folders

    cards = [read_card_file(folder / CARD_FILE) for folder in model_folders()]
    if as_json:
        print(json.dumps(cards, indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    rows = [("NAME", "SEGMENTS", "INPUTS", "DICE", "LICENCE", "DESCRIPTION")]
    for card in cards:
        score = card["accuracy"].get("dice")
        rows.append(
            (
                card["name"],
                ", ".join(label["name"] for label in card["labels"]),
                " + ".join(channel["name"] for channel in card["channels"]),
                "-" if score is None else f"{score:.2f}",
                str(card["training"].get("licence") or "-"),
                card["description"],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]))
    return 0
