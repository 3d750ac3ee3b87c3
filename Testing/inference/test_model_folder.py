"""Model folders are checked before use: every field, every hash, every weight."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from TeachFormerCore.errors import InputError
from TeachFormerCore.inference.card import SCHEMA
from TeachFormerCore.inference.model_folder import (
    find_model,
    import_model,
    load_network,
    read_card,
    remove_model,
    sha256_of,
)


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
    if field not in ("field_of_view_mm",):  # null is legal there
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


def test_removing_never_leaves_the_models_folder(tiny_model: Path) -> None:
    for name in ("../tiny", str(tiny_model), "sts_ct_pet"):
        with pytest.raises(InputError, match="There is no model"):
            remove_model(name)
    assert (tiny_model / "model.json").exists()
