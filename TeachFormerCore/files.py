"""Files: their content as a hash, writing them so that none is seen half-written, and sweeping up after kills."""

import hashlib
import os
import shutil
import time
import uuid
from pathlib import Path

ABANDONED_S = 3600.0  # what is temporary and was not touched for so long was left by a process that was killed


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def temporary_name(file: Path) -> Path:
    """A name beside a file to write it under: no other process's, not even in another container or on another host."""
    return file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}")


def write_whole(file: Path, text: str) -> None:
    """Writes a text file so that it is never seen half-written."""
    temporary = temporary_name(file)
    try:
        temporary.write_bytes(text.encode())  # as it is: text mode would change line ends on Windows
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)  # there after an error only


def sweep(folder: Path, prefix: str = ".") -> None:
    """Removes what killed processes left half-written in a folder: files and folders whose names begin so."""
    for entry in folder.glob(f"{prefix}*"):
        try:
            if time.time() - entry.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        except OSError:  # another process was faster, or owns it
            continue
