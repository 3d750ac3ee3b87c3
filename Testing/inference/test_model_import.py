"""Models from strangers: nothing is written outside, nothing half, nothing that its card does not name."""

import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from TeachFormerCore.errors import InputError
from TeachFormerCore.inference import model_import
from TeachFormerCore.inference.model_folder import model_folders, read_card
from TeachFormerCore.inference.model_import import import_model
from TeachFormerCore.paths import user_models_folder


def zipped(model: Path, *, top: str = "", **more: bytes) -> Path:
    """A zip file of the model, in a folder of the archive, with further entries."""
    file = model.parent / "model.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(model.iterdir()):
            archive.write(path, top + path.name)
        for name, content in more.items():
            archive.writestr(name, content)
    return file


def everything() -> list[str]:
    folder = user_models_folder()
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize("top", ["", "a model/"])
def test_a_zip_file_is_imported(tiny_model: Path, top: str) -> None:
    more = {f"{top}LICENSE": b"free", "__MACOSX/._model.json": b"junk", f"{top}.DS_Store": b"junk"}
    target = import_model(zipped(tiny_model, top=top, **more))
    assert sorted(path.name for path in target.iterdir()) == ["LICENSE", "model.json", "weights.safetensors"]
    assert read_card(target) == read_card(tiny_model)
    assert everything() == ["tiny"]
    assert target in model_folders()


def link(name: str, target: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


BAD_ENTRIES: dict[str, tuple[str, str]] = {
    "traversal": ("../evil.json", "does not stay in its folder"),
    "deep traversal": ("a/../../evil.json", "does not stay in its folder"),
    "absolute": ("/tmp/evil.json", "does not stay in its folder"),
    "drive": ("C:evil.json", "does not stay in its folder"),
    "backslash": ("..\\evil.json", "does not stay in its folder"),
    "line break": ("a\nb.json", "does not stay in its folder"),
    "pickle": ("weights.pth", "weights.pth, which its card does not name"),
    "program": ("run.py", "which its card does not name"),
    "second card": ("other/model.json", "2 model cards"),
    "twice": ("MODEL.JSON", "twice"),
    "outside the model": ("x/y.json", "which its card does not name"),
}


@pytest.mark.parametrize("fault", BAD_ENTRIES)
def test_a_bad_entry_is_refused_and_nothing_is_written(tiny_model: Path, fault: str) -> None:
    name, reason = BAD_ENTRIES[fault]
    source = zipped(tiny_model, top="x/" if fault == "outside" else "", **{name: b"evil"})
    before = sorted(tiny_model.parent.rglob("*"))
    with pytest.raises(InputError, match=reason):
        import_model(source)
    assert everything() == []
    assert sorted(tiny_model.parent.rglob("*")) == before


def test_links_in_a_zip_file_are_refused(tiny_model: Path) -> None:
    source = zipped(tiny_model)
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link("LICENSE", "/etc/passwd"), "/etc/passwd")
    with pytest.raises(InputError, match="LICENSE, a link or a device"):
        import_model(source)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo], ids=["link", "pipe"])
def test_links_and_pipes_in_a_folder_are_refused(tiny_model: Path, make: Callable[[Path], None]) -> None:
    make(tiny_model / "LICENSE")
    with pytest.raises(InputError, match="LICENSE, a link or a device"):
        import_model(tiny_model)
    assert everything() == []


def test_a_file_that_its_card_does_not_name_is_refused(tiny_model: Path) -> None:
    (tiny_model / "extra.bin").write_bytes(b"?")
    with pytest.raises(InputError, match="extra.bin, which its card does not name"):
        import_model(tiny_model)


def test_a_bomb_is_refused_before_it_is_unpacked(tiny_model: Path) -> None:
    file = tiny_model.parent / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", (tiny_model / "model.json").read_bytes())
        archive.writestr("weights.safetensors", bytes(20 * 2**20))
    with pytest.raises(InputError, match="more than 100 times its size"):
        import_model(file)
    assert everything() == []


def test_a_size_that_lies_is_found_out_while_copying(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_import, "LARGEST_MODEL", 50_000)
    member = model_import._Member(size=10, open=lambda: io.BytesIO(bytes(60_000)))
    target = tiny_model.parent / "target"
    target.mkdir()
    with pytest.raises(InputError, match="holds more than a model"):
        model_import._copy({"weights.safetensors": member}, target, Path("source.zip"))
    assert not (target / "weights.safetensors").exists() or (target / "weights.safetensors").stat().st_size <= 50_000


@pytest.mark.parametrize("limit", ["MOST_FILES", "LARGEST_MODEL"])
def test_what_is_larger_than_a_model_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(model_import, limit, 1)
    for source in (tiny_model, zipped(tiny_model)):
        with pytest.raises(InputError, match="holds more than a model"):
            import_model(source)


def test_a_damaged_archive_is_one_sentence(tiny_model: Path) -> None:
    source = zipped(tiny_model)
    content = bytearray(source.read_bytes())
    place = content.index(b"weights.safetensors") + 400
    content[place] ^= 0xFF
    source.write_bytes(content)
    with pytest.raises(InputError, match="could not be unpacked"):
        import_model(source)
    assert everything() == []
    source.write_bytes(bytes(content[:100]))
    with pytest.raises(InputError, match="neither a folder nor a zip file"):
        import_model(source)


def test_wrong_weights_and_cards_leave_nothing(tiny_model: Path) -> None:
    card = json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))
    (tiny_model / "model.json").write_text(json.dumps(card | {"files": {"weights.safetensors": "0" * 64}}))
    with pytest.raises(InputError, match="sha256 differs"):
        import_model(tiny_model)
    (tiny_model / "model.json").write_text("{}")
    with pytest.raises(InputError, match="lacks 'schema_version'"):
        import_model(zipped(tiny_model))
    assert everything() == []


def test_a_folder_that_is_being_made_is_not_listed(tiny_model: Path) -> None:
    user_models_folder().mkdir(parents=True)
    tiny_model.rename(user_models_folder() / ".tiny-x")
    assert all(not folder.name.startswith(".") for folder in model_folders())
