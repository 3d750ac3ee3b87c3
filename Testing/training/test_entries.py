"""Entries on disk: whole or absent, trusted only when their content is what was written."""

import errno
import os
import time
from pathlib import Path

import pytest
import torch

from TeachFormerCore.errors import TeachFormerError
from TeachFormerCore.files import ABANDONED_S
from TeachFormerCore.training.entries import Entries

CONTENT = {"maps": torch.arange(24.0).reshape(2, 3, 4).half(), "label": torch.arange(12, dtype=torch.uint8)}


@pytest.fixture
def entries(tmp_path: Path) -> Entries:
    made = Entries(tmp_path, kind="maps", key={"seed": 1})
    made.write("P0_0", CONTENT)
    return made


def test_what_is_written_is_read(entries: Entries) -> None:
    assert entries.is_sound("P0_0")
    read = entries.read("P0_0")
    assert read.keys() == CONTENT.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in CONTENT.items())
    assert {file.name for file in entries.folder.iterdir()} == {"key.json", "P0_0.safetensors"}
    assert entries.size(["P0_0", "P1_0"]) == entries.file("P0_0").stat().st_size


def test_the_key_names_the_folder(tmp_path: Path) -> None:
    folders = {Entries(tmp_path, kind="maps", key=key).folder for key in ({"a": 1}, {"a": 2}, {"a": 1, "b": 0})}
    assert len(folders) == 3
    assert Entries(tmp_path, kind="maps", key={"b": 0, "a": 1}).folder in folders


@pytest.mark.parametrize("fault", ["bit", "cut", "empty", "text", "absent", "another"])
def test_a_damaged_entry_is_not_trusted(entries: Entries, fault: str) -> None:
    file = entries.file("P0_0")
    content = bytearray(file.read_bytes())
    if fault == "bit":
        content[-3] ^= 1
    damaged = {"bit": bytes(content), "cut": bytes(content[:-5]), "empty": b"", "text": b"not tensors"}
    if fault == "absent":
        file.unlink()
    elif fault == "another":  # safetensors without our hash
        from safetensors.torch import save_file

        save_file(CONTENT, file)
    else:
        file.write_bytes(damaged[fault])
    assert not entries.is_sound("P0_0")
    entries.write("P0_0", CONTENT)
    assert entries.is_sound("P0_0")


def test_an_entry_that_vanishes_in_use_says_what_to_do(entries: Entries) -> None:
    entries.file("P0_0").unlink()
    with pytest.raises(TeachFormerError, match=r"P0_0.*start the same run again"):
        entries.read("P0_0")


def test_what_a_killed_job_left_is_swept_and_what_a_living_one_writes_is_not(entries: Entries) -> None:
    old, new = entries.folder / ".P1_0.123", entries.folder / ".P2_0.124"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    past = time.time() - ABANDONED_S - 1
    os.utime(old, (past, past))
    entries.sweep()
    assert not old.exists()
    assert new.exists()
    assert entries.is_sound("P0_0")


def test_a_full_disk_leaves_nothing_behind(entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        entries.write("P1_0", CONTENT)
    assert {file.name for file in entries.folder.iterdir()} == {"key.json", "P0_0.safetensors"}


def test_an_entry_in_another_s_place_is_not_sound(entries: Entries) -> None:
    for number, name in enumerate(("a", "b")):
        entries.write(name, {"x": torch.full((3,), float(number))})
    entries.file("a").write_bytes(entries.file("b").read_bytes())
    assert not entries.is_sound("a")
    assert entries.is_sound("b")
