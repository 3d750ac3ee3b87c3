"""Model folders are checked before use: every field, every hash, every weight."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.card import SCHEMA
from TeachFormerCore.inference.model_folder import (
    find_model,
    load_network,
    read_card,
    remove_model,
    sha256_of,
    write_model,
)
from TeachFormerCore.inference.model_import import import_model
from TeachFormerCore.paths import user_models_folder


def change_card(folder: Path, **fields: object) -> None:
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields))


def test_a_good_folder_loads(tiny_model: Path) -> None:
    network = load_network(tiny_model, read_card(tiny_model))
    assert not network.training
    assert network(torch.zeros(1, 2, 32, 32, 32)).shape == (1, 2, 32, 32, 32)


@pytest.mark.parametrize("field", SCHEMA)
def test_each_missing_or_wrong_field_is_named(tiny_model: Path, field: str) -> None:
    card = json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))
    change_card(tiny_model, **{field: object.__name__ if field in ("network", "channels") else None})
    if field != "field_of_view_mm":  # null is legal there
        with pytest.raises(InputError, match=f"'{field}' must be"):
            read_card(tiny_model)
    del card[field]
    (tiny_model / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=f"lacks '{field}'"):
        read_card(tiny_model)


def test_a_changed_weight_is_refused(tiny_model: Path) -> None:
    file = tiny_model / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="sha256 differs"):
        read_card(tiny_model)


def test_a_missing_file_is_refused(tiny_model: Path) -> None:
    (tiny_model / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="lacks its file"):
        read_card(tiny_model)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_file_names_stay_inside_the_folder(tiny_model: Path, name: str) -> None:
    files = json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))["files"]
    change_card(tiny_model, files=files | {name: "0" * 64})
    with pytest.raises(InputError, match="'files' must be"):
        read_card(tiny_model)


def test_weights_of_another_shape_are_refused(tiny_model: Path) -> None:
    file = tiny_model / "weights.safetensors"
    weights = load_file(file)
    weights["head.weight"] = torch.zeros(3, 2, 1, 1, 1)
    save_file(weights, file)
    change_card(tiny_model, files={"weights.safetensors": sha256_of(file)})
    with pytest.raises(InputError, match=r"do not fit its card.*head\.weight"):
        load_network(tiny_model, read_card(tiny_model))


def test_an_unknown_network_is_refused(tiny_model: Path) -> None:
    change_card(tiny_model, network={"name": "os.system", "arguments": {}})
    with pytest.raises(InputError, match="no network 'os.system'"):
        load_network(tiny_model, read_card(tiny_model))


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("channels", 1, "modality"), "US", "channels[1].modality"),
        (("channels", 1, "modality"), None, "channels[1].modality"),
        (("channels", 0, "optional"), "no", "channels[0].optional"),
        (("channels", 0, "surprise"), 1, "channels[0]"),
        (("labels", 0, "terminology"), {"type": ["SCT", "86049000", "Neoplasm, Primary"]}, "labels[0].terminology"),
        (("labels", 0, "terminology"), {"category": ["SCT"], "type": ["SCT"]}, "labels[0].terminology"),
        (("labels", 0, "color"), [0, 0, 256], "labels[0].color"),
        (("labels", 0, "value"), 2, "labels[0].value"),
        (("network", "arguments"), {"filters": 10**9}, "network.arguments"),
        (("image_size",), [32, 32, 32.5], "image_size"),
        (("spacing",), [4, 4, float("1e300")], "spacing"),
        (("accuracy",), {"subsets": {"CT": 1.5}}, "accuracy"),
        (("accuracy",), {"dice": 10**400}, "accuracy"),
        (("seconds",), {"cpu": 10**400}, "seconds"),
        (("channels", 0, "normalisation"), {"kind": "nonsense"}, "channels[0].normalisation"),
        (("channels", 0, "normalisation"), {"kind": ["z_score"]}, "channels[0].normalisation"),
        (
            ("channels", 0, "normalisation"),
            {"kind": "clip_and_scale", "low": 5, "high": 1},
            "channels[0].normalisation",
        ),
        (
            ("channels", 0, "normalisation"),
            {"kind": "scale_suv", "high": 10**400, "divisor": 5},
            "channels[0].normalisation",
        ),
        (("files",), {"weights.safetensors": "0" * 64, "weights.pth": "0" * 64}, "files"),
    ],
)
def test_a_wrong_field_deep_inside_is_named(tiny_model: Path, place: tuple, value: object, named: str) -> None:
    card = json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))
    owner = card
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    (tiny_model / "model.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=re.escape(f"'{named}' ")):
        read_card(tiny_model)


@pytest.mark.parametrize(("owner", "field"), [("channels", "modality"), ("labels", "terminology"), ("labels", "name")])
def test_a_missing_field_deep_inside_is_named(tiny_model: Path, owner: str, field: str) -> None:
    entries = json.loads((tiny_model / "model.json").read_text(encoding="utf-8"))[owner]
    del entries[0][field]
    change_card(tiny_model, **{owner: entries})
    with pytest.raises(InputError, match=re.escape(f"lacks '{owner}[0].{field}'")):
        read_card(tiny_model)


def test_a_region_that_is_needed_needs_a_size(tiny_model: Path) -> None:
    change_card(tiny_model, needs_region=True, field_of_view_mm=None)
    with pytest.raises(InputError, match="with 'needs_region', 'field_of_view_mm' must"):
        read_card(tiny_model)


def test_accuracy_of_subsets_and_unknown_codes_are_allowed(tiny_model: Path) -> None:
    change_card(tiny_model, accuracy={"dice": 0.7, "subsets": {"CT": 0.5, "PET": None, "CT+PET": 0.7}})
    assert read_card(tiny_model)["labels"][0]["terminology"] is None


def test_a_network_larger_than_its_weights_takes_no_memory(tiny_model: Path) -> None:
    """A card of modest numbers can name a network of terabytes; over shapes alone it is refused at once."""
    change_card(tiny_model, network={"name": "unetr", "arguments": {"hidden_size": 9984, "mlp_dim": 9999}})
    with pytest.raises(InputError, match="do not fit its card"):
        load_network(tiny_model, read_card(tiny_model))


@pytest.mark.parametrize("arguments", [{"nonsense": 1}, {"in_channels": 3}, {"filters": "many"}, {"filters": -4}])
def test_arguments_that_a_network_does_not_take_are_refused(tiny_model: Path, arguments: dict) -> None:
    change_card(tiny_model, network={"name": "h_denseformer_light", "arguments": arguments})
    with pytest.raises(InputError, match="do not fit its card"):
        load_network(tiny_model, read_card(tiny_model))


def test_a_model_is_found_by_name_and_path(tiny_model: Path) -> None:
    assert find_model(tiny_model) == tiny_model
    with pytest.raises(InputError, match="no model 'absent'"):
        find_model("absent")
    with pytest.raises(InputError, match="not a model folder"):
        find_model(tiny_model.parent)
    imported = import_model(tiny_model)
    assert find_model("tiny") == imported
    with pytest.raises(InputError, match="installed already"):
        import_model(tiny_model)
    remove_model("tiny")
    with pytest.raises(InputError, match="no model 'tiny'"):
        find_model("tiny")


@pytest.mark.parametrize("name", ["../tiny", "sts_ct_pet", "", ".", ".."])
def test_removing_never_leaves_the_models_folder(tiny_model: Path, name: str) -> None:
    (user_models_folder() / "kept").mkdir(parents=True)
    with pytest.raises(InputError, match="There is no model"):
        remove_model(name)
    with pytest.raises(InputError, match="There is no model"):
        remove_model(str(tiny_model))
    assert (tiny_model / "model.json").exists()
    assert (user_models_folder() / "kept").is_dir()


def test_removing_a_linked_model_leaves_its_files(tiny_model: Path) -> None:
    user_models_folder().mkdir(parents=True)
    (user_models_folder() / "tiny").symlink_to(tiny_model)
    remove_model("tiny")
    assert not (user_models_folder() / "tiny").exists()
    assert (tiny_model / "model.json").exists()


def test_a_file_that_is_gone_between_two_looks_is_lacking(tiny_model: Path, monkeypatch) -> None:
    (tiny_model / "weights.safetensors").unlink()
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    with pytest.raises(InputError, match="lacks its file weights.safetensors"):
        read_card(tiny_model)


def test_a_model_that_is_replaced_is_there_whenever_it_ends(tiny_model: Path, monkeypatch) -> None:
    """Regression: a kill while the former files were deleted left no model at all."""
    card = read_card(tiny_model)
    there: list[bool] = []
    remove = shutil.rmtree

    def watched(folder: Path, **options: object) -> None:
        there.append((tiny_model / "model.json").is_file())
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", watched)
    weights = tiny_model.parent / "weights.safetensors"
    shutil.copy(tiny_model / "weights.safetensors", weights)
    write_model(tiny_model, card | {"description": "new"}, weights)
    assert there == [True]
    assert read_card(tiny_model)["description"] == "new"


def test_two_processes_on_one_model_folder_do_not_disturb_each_other(tiny_model: Path) -> None:
    """One writes the model anew again and again, another reads it: it sees a whole one each time, or none."""
    card = read_card(tiny_model)
    weights = tiny_model.parent / "weights.safetensors"
    folder = tiny_model.parent / "shared"
    write_model(folder, card, weights)
    code = """
import json, sys
from pathlib import Path
from TeachFormerCore.inference.model_folder import read_card, write_model
folder, weights = map(Path, sys.argv[1:])
card = read_card(folder)
print("ready", flush=True)
for number in range(40):
    write_model(folder, card | {"version": str(number)}, weights)
"""
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with subprocess.Popen(
        [sys.executable, "-c", code, folder, weights], env=environment, stdout=subprocess.PIPE, encoding="utf-8"
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        seen, refused = set(), set()
        while writer.poll() is None:
            try:
                seen.add(read_card(folder)["version"])
            except InputError as error:
                refused.add(str(error))
        assert writer.returncode == 0
    # In the moment between the old and the new one there is none; never one that is not whole.
    assert all("is not a model folder" in words or "lacks its file" in words for words in refused), refused
    assert len(seen) > 1
    assert read_card(folder)["version"] == "39"
    assert not list(folder.parent.glob(".shared-*"))
