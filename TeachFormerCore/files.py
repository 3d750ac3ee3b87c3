"""Files: their content as a hash, and writing them so that they are never seen half-written."""

import hashlib
import os
from pathlib import Path


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_whole(file: Path, text: str) -> None:
    """Writes a text file so that it is never seen half-written."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)
