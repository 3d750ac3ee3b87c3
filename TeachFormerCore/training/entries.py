"""Tensors that are dear to compute, kept on disk: an entry is whole or absent, and checked before it is trusted.

Several jobs may use a folder at once: an entry is written under a temporary name of its own and renamed, and two that
are written at the same time hold the same.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import TeachFormerError
from ..files import sweep, temporary_name, write_whole

KEY_FILE = "key.json"
DIGEST = "sha256"


class Entries:
    """A folder of entries that depend on one thing, the key: its hash is part of the folder's name.

    Args:
        root: where the folder lies; it is made with the first entry.
        kind: for people, the beginning of the folder's name.
        key: everything that the entries depend on, as JSON can hold it.
    """

    def __init__(self, root: Path, *, kind: str, key: Mapping[str, Any]) -> None:
        self.key = json.loads(json.dumps(key))
        self.hash = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        self.folder = root / f"{kind}-{self.hash[:16]}"

    def file(self, name: str) -> Path:
        """Where an entry lies, or would."""
        return self.folder / f"{name}.safetensors"

    def is_sound(self, name: str) -> bool:
        """Whether the entry is there and holds what was written: its content is hashed."""
        try:
            tensors, digest = _load(self.file(name))
        except (OSError, SafetensorError):
            return False
        return digest == _digest(tensors, of=name)

    def read(self, name: str) -> dict[str, Tensor]:
        """An entry that was found sound before; hashing it at every step would cost what the cache saves.

        Raises:
            TeachFormerError: it is not there any more, or not an entry.
        """
        try:
            return _load(self.file(name))[0]
        except (OSError, SafetensorError) as error:
            raise TeachFormerError(
                f"{self.file(name)} was removed or damaged while it was in use ({error}): start the same run again, it "
                "makes the entry anew and resumes."
            ) from error

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Puts an entry in its place, whole, whatever was there before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / KEY_FILE).exists():
            write_whole(self.folder / KEY_FILE, json.dumps(self.key, indent=1))
        write_tensors(self.file(name), tensors, digest_of=name)

    def size(self, names: list[str]) -> int:
        """Bytes on disk of those entries that are there."""
        return sum(self.file(name).stat().st_size for name in names if self.file(name).exists())

    def sweep(self) -> None:
        """Removes what killed jobs left half-written."""
        sweep(self.folder)


def write_tensors(file: Path, tensors: Mapping[str, Tensor], *, digest_of: str | None = None) -> None:
    """Writes tensors of any device as safetensors, a whole file or none; with the hash of an entry of that name."""
    # Clones: a submodule that several parents share (MDViT's position encodings) has several names and one memory.
    plain = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    temporary = temporary_name(file)
    try:
        save_file(plain, temporary, metadata={DIGEST: _digest(plain, of=digest_of)} if digest_of else None)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _load(file: Path) -> tuple[dict[str, Tensor], str]:
    with safe_open(file, framework="pt") as stream:
        digest = (stream.metadata() or {}).get(DIGEST, "")
        return {name: stream.get_tensor(name) for name in stream.keys()}, digest  # noqa: SIM118


def _digest(tensors: Mapping[str, Tensor], *, of: str) -> str:
    """Of the content and the entry's name: one in another's place is not sound."""
    digest = hashlib.sha256(f"{of};".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
