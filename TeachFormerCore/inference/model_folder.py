"""Model folders: a card and safetensors weights, found by name, checked before use, never unpickled."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import sha256_of
from ..paths import SHIPPED_MODELS, keepable, user_models_folder
from .card import CARD_FILE, WEIGHTS_FILE, Card, check_card, read_card_file

if TYPE_CHECKING:
    from ..networks import SegmentationNetwork

DEFAULT_MODEL = "sts_ct_pet"


def model_folders() -> list[Path]:
    """All model folders: the shipped ones, then the user's; a name counts once, the first found."""
    found: dict[str, Path] = {}
    for root in (SHIPPED_MODELS, user_models_folder()):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                # A name with a dot in front is a folder that is being made.
                if (folder / CARD_FILE).is_file() and not folder.name.startswith("."):
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

    They are verified each time, and nothing is remembered that could go stale: a student of 6 MB takes 10 ms.

    Raises:
        InputError: a card that cannot be used, a missing or changed file.
    """
    card = read_card_file(folder / CARD_FILE)
    for name, expected in card["files"].items():
        file = folder / name
        lacking = f"The model {folder} lacks its file {name}: install it again."
        if not file.is_file():
            raise InputError(lacking)
        try:
            found = sha256_of(file)
        except FileNotFoundError as error:  # another process is replacing the folder
            raise InputError(lacking) from error
        if found != expected:
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
    import torch
    from safetensors.numpy import load_file  # older safetensors.torch need the package 'packaging' too

    from ..networks import build_network

    def build() -> "SegmentationNetwork":
        return build_network(
            card["network"]["name"],
            in_channels=len(card["channels"]),
            out_channels=1 + len(card["labels"]),
            spatial_dims=len(card["image_size"]),
            image_size=card["image_size"],
            **card["network"]["arguments"],
        )

    try:
        weights = {name: torch.from_numpy(array) for name, array in load_file(folder / WEIGHTS_FILE).items()}
        # Over shapes alone first: a card must not make a network of any size but that of its weights.
        with torch.device("meta"):
            build().load_state_dict(weights, strict=True, assign=True)
        network = build()
        network.load_state_dict(weights, strict=True)
    except Exception as error:  # whatever a network's constructor raises for arguments that are a stranger's
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"The model {folder} cannot be used: its weights do not fit its card ({reason}).") from error
    return network.eval()


def write_model(folder: Path, card: Card, weights: Path, *, more: Mapping[str, Path] | None = None) -> None:
    """Makes a model folder of a card and a weights file; ``files`` of the card is filled in here.

    Args:
        more: further files of the model by their name in the folder, e.g. ``openvino/model.xml``.

    Raises:
        InputError: the folder exists and is not a model folder, or the card cannot be used.
    """
    sources = {WEIGHTS_FILE: weights, **(more or {})}
    card = card | {"files": {name: sha256_of(source) for name, source in sources.items()}}
    check_card(card, folder / CARD_FILE)
    with new_folder(folder) as building:
        for name, source in sources.items():
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, building / name)
        text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
        (building / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def remove_model(name: str) -> Path:
    """Removes a model of the user's models folder.

    Raises:
        InputError: there is none of that name, or it is a shipped one.
    """
    folder = user_models_folder() / name
    if not name or Path(name).name != name or not (folder / CARD_FILE).is_file():
        shipped = " It is shipped with TeachFormer and stays." if name and (SHIPPED_MODELS / name).is_dir() else ""
        raise InputError(f"There is no model '{name}' in {user_models_folder()}.{shipped}")
    try:
        if folder.is_symlink():  # somebody's own folder, made visible here
            folder.unlink()
        else:
            with _put_aside(folder):
                pass
    except OSError as error:
        raise InputError(f"The model {folder} could not be removed ({error.strerror}): remove the folder.") from error
    return folder


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder under a temporary name that gets its own at the end, or is removed after an error.

    A model folder in its place is replaced, and is whole until then.

    Raises:
        InputError: something else is in its place, or it cannot be written.
    """
    keepable(folder, "TEACHFORMER_MODELS")
    if folder.exists() and not (folder / CARD_FILE).is_file():
        raise InputError(f"{folder} exists and is not a model folder: choose another one.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{folder} could not be made ({error.strerror}): choose another one.") from error
    try:
        yield building
        building.chmod(0o755)
        with _put_aside(folder):
            os.replace(building, folder)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(f"{folder} could not be made ({error}): free some space or choose another one.") from error
        raise


@contextlib.contextmanager
def _put_aside(folder: Path) -> Iterator[None]:
    """Takes a folder that is there away from its name at once, and removes it at the end; after an error it is back."""
    if not folder.exists():
        yield
        return
    away = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    away.rmdir()  # Windows renames onto nothing that exists
    os.replace(folder, away)
    try:
        yield
    except BaseException:
        os.replace(away, folder)
        raise
    shutil.rmtree(away)
