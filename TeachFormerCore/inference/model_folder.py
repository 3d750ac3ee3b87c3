"""Model folders: a card and safetensors weights, found by name, checked before use, never unpickled."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..paths import SHIPPED_MODELS, user_models_folder
from .card import CARD_FILE, Card, check_card, read_card_file

if TYPE_CHECKING:
    from ..networks import SegmentationNetwork

WEIGHTS_FILE = "weights.safetensors"
DEFAULT_MODEL = "sts_ct_pet"


def model_folders() -> list[Path]:
    """All model folders: the shipped ones, then the user's; a name counts once, the first found."""
    found: dict[str, Path] = {}
    for root in (SHIPPED_MODELS, user_models_folder()):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if (folder / CARD_FILE).is_file():
                    found.setdefault(folder.name, folder)
    return list(found.values())


def find_model(name: str | Path | None = None) -> Path:
    """The folder of a model given by name or path; the shipped student unless given.

    Raises:
        InputError: there is no such model.
    """
    name = DEFAULT_MODEL if name is None else name
    known = {folder.name: folder for folder in model_folders()}
    if str(name) in known:
        return known[str(name)]
    if (Path(name) / CARD_FILE).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise InputError(f"{name} is not a model folder: it has no {CARD_FILE}.")
    raise InputError(
        f"There is no model '{name}': give the path of a model folder or one of {', '.join(known) or 'none installed'} "
        "(teachformer models list)."
    )


def read_card(folder: Path) -> Card:
    """The card of a model folder, its files' sha256 verified.

    Raises:
        InputError: a card that cannot be used, a missing or changed file.
    """
    card = read_card_file(folder / CARD_FILE)
    for name, expected in card["files"].items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"The model {folder} lacks its file {name}: install it again.")
        if sha256_of(file) != expected:
            raise InputError(
                f"The file {file} is not the one its card was made for (sha256 differs): it was damaged or changed, "
                "install the model again."
            )
    return card


def load_network(folder: Path, card: Card) -> "SegmentationNetwork":
    """The network with its weights, in eval mode, on the CPU.

    Raises:
        InputError: the card names no known network, or the weights do not fit it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ..networks import build_network

    try:
        network = build_network(
            card["network"]["name"],
            in_channels=len(card["channels"]),
            out_channels=1 + len(card["labels"]),
            spatial_dims=len(card["image_size"]),
            image_size=card["image_size"],
            **card["network"]["arguments"],
        )
        network.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True)
    except (ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"The model {folder} cannot be used: its weights do not fit its card ({reason}).") from error
    return network.eval()


def write_model(folder: Path, card: Card, weights: Path) -> None:
    """Makes a model folder of a card and a weights file; ``files`` of the card is filled in here.

    Raises:
        InputError: the folder exists and is not a model folder, or the card cannot be used.
    """
    card = card | {"files": {WEIGHTS_FILE: sha256_of(weights)}}
    check_card(card, folder / CARD_FILE)

    def fill(building: Path) -> None:
        shutil.copyfile(weights, building / WEIGHTS_FILE)
        text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
        (building / CARD_FILE).write_text(text + "\n", encoding="utf-8")

    _place(folder, fill)


def import_model(source: Path) -> Path:
    """Copies a model folder, checked, into the user's models folder.

    Raises:
        InputError: the source is no usable model, or a model of that name is there already.
    """
    card = read_card(source)
    load_network(source, card)
    target = user_models_folder() / card["name"]
    if target.exists() or (SHIPPED_MODELS / card["name"]).exists():
        raise InputError(f"A model '{card['name']}' is installed already: remove it first (teachformer models remove).")

    def fill(building: Path) -> None:
        for name in (CARD_FILE, *card["files"]):
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, building / name)

    _place(target, fill)
    return target


def remove_model(name: str) -> Path:
    """Removes a model of the user's models folder.

    Raises:
        InputError: there is none of that name, or it is a shipped one.
    """
    folder = user_models_folder() / name
    if Path(name).name != name or not (folder / CARD_FILE).is_file():
        shipped = " It is shipped with TeachFormer and stays." if (SHIPPED_MODELS / name).is_dir() else ""
        raise InputError(f"There is no model '{name}' in {user_models_folder()}.{shipped}")
    shutil.rmtree(folder)
    return folder


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _place(folder: Path, fill) -> None:  # type: ignore[no-untyped-def]
    """Builds a folder under a temporary name and renames it; a model folder in its place is replaced."""
    if folder.exists() and not (folder / CARD_FILE).is_file():
        raise InputError(f"{folder} exists and is not a model folder: choose another one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(building)
        building.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
