"""A model from a stranger, a folder or a zip file: every name, size and kind is judged before a byte is written."""

import contextlib
import importlib.util
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import InputError, TeachFormerError
from ..paths import SHIPPED_MODELS, user_models_folder
from .card import CARD_BYTES, CARD_FILE, is_safe_name, parse_card
from .model_folder import load_network, new_folder, read_card

LARGEST_MODEL = 2 * 2**30  # bytes; the largest network of the papers has 96 million parameters, 0.4 GB
MOST_FILES = 64
MOST_INFLATION = 100  # times the size of the zip file; weights hardly shrink, text shrinks some tenfold
CHUNK = 1 << 20
# Beside the card and the files it names these may be there; they are copied, so that a licence stays with its model.
BESIDE = ("LICENSE", "LICENCE", "NOTICE", "README")
# What file managers leave in folders and archives.
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A file of the source: the size in bytes that it claims, and how to read it."""

    size: int
    open: Callable[[], IO[bytes]]


def import_model(source: Path) -> Path:
    """Copies a model into the user's models folder, where it appears whole and checked, or not at all.

    Args:
        source: a model folder, or a zip file that holds one, at its top or in one folder.

    Raises:
        InputError: the source is no usable model, holds what does not belong to one, is larger than a model can be, or
            a model of that name is there already.
    """
    with contextlib.ExitStack() as stack:
        members = _members(source, stack)
        cards = [name for name in members if name.rpartition("/")[2] == CARD_FILE]
        if len(cards) != 1:
            raise InputError(
                f"{source} holds {len(cards) or 'no'} model cards ({CARD_FILE}): give one model at a time."
            )
        top = cards[0].removesuffix(CARD_FILE)
        try:
            with members[cards[0]].open() as stream:
                card = parse_card(stream.read(CARD_BYTES + 1), source / cards[0])
            for name in members:
                if name.removeprefix(top) not in (CARD_FILE, *card["files"]) and not _may_be_beside(name, top):
                    raise InputError(f"{source} holds {name}, which its card does not name: give a model folder only.")
            target = user_models_folder() / card["name"]
            if target.exists() or (SHIPPED_MODELS / card["name"]).exists():
                raise InputError(
                    f"A model '{card['name']}' is installed already: remove it first (teachformer models remove)."
                )
            with new_folder(target) as building:
                _copy({name.removeprefix(top): member for name, member in members.items()}, building, source)
                card = read_card(building)
                # A graph serves without PyTorch; where it is there later, the weights are judged when they are loaded.
                if importlib.util.find_spec("torch"):
                    load_network(building, card)
        except TeachFormerError:
            raise
        except Exception as error:  # whatever zipfile and what it unpacks with raise for a damaged archive
            raise InputError(f"{source} could not be unpacked ({error}): download or make it again.") from error
    return target


def _members(source: Path, stack: contextlib.ExitStack) -> dict[str, _Member]:
    """The files of a source by their names, in the order they are found; junk is left out."""
    members: dict[str, _Member] = {}
    total = 0
    try:
        for name, member in _folder_files(source) if source.is_dir() else _zip_files(source, stack):
            if any(part in JUNK for part in name.split("/")):
                continue
            if not is_safe_name(name):
                raise InputError(f"{source} holds {name!r}, which does not stay in its folder: it was not imported.")
            if name.lower() in (known.lower() for known in members):
                raise InputError(f"{source} holds {name} twice: it was not imported.")
            members[name] = member
            total += member.size
            _check_size(source, len(members), total)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"{source} could not be read ({error}): give a model folder, or a zip file of one.") from error
    return members


def _folder_files(source: Path) -> Iterator[tuple[str, _Member]]:
    for path in sorted(source.rglob("*")):
        kind = path.lstat().st_mode
        name = path.relative_to(source).as_posix()
        if stat.S_ISDIR(kind):
            continue
        if not stat.S_ISREG(kind):
            raise InputError(f"{source} holds {name}, a link or a device and no file: it was not imported.")
        yield name, _Member(size=path.stat().st_size, open=lambda path=path: path.open("rb"))  # type: ignore[misc]


def _zip_files(source: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, _Member]]:
    if not source.exists():
        raise InputError(f"{source} does not exist: give a model folder, or a zip file of one.")
    if not zipfile.is_zipfile(source):
        raise InputError(f"{source} is neither a folder nor a zip file: give a model folder, or a zip file of one.")
    archive = stack.enter_context(zipfile.ZipFile(source))
    largest = MOST_INFLATION * source.stat().st_size
    if sum(entry.file_size for entry in archive.infolist()) > largest:
        raise InputError(f"{source} would unpack to more than {MOST_INFLATION} times its size: it was not imported.")
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        name = entry.orig_filename  # before zipfile cuts it at a null byte
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise InputError(f"{source} holds {name}, a link or a device and no file: it was not imported.")
        if entry.flag_bits & 1:
            raise InputError(f"{source} is protected by a password: unpack it and give the folder.")
        yield name, _Member(size=entry.file_size, open=lambda entry=entry: archive.open(entry))  # type: ignore[misc]


def _check_size(source: Path, files: int, size: int) -> None:
    if files > MOST_FILES or size > LARGEST_MODEL:
        raise InputError(
            f"{source} holds more than a model ({MOST_FILES} files, {LARGEST_MODEL // 2**30} GiB at most): it was not "
            "imported."
        )


def _may_be_beside(name: str, top: str) -> bool:
    return name.startswith(top) and "/" not in name.removeprefix(top) and name.removeprefix(top).startswith(BESIDE)


def _copy(members: Mapping[str, _Member], target: Path, source: Path) -> None:
    """Copies the files; what a file claims to hold is no more believed than its name was."""
    copied = 0
    for name, member in members.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with member.open() as stream, (target / name).open("xb") as file:
            while chunk := stream.read(CHUNK):
                copied += len(chunk)
                _check_size(source, 0, copied)
                file.write(chunk)
