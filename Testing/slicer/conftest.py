"""What the tests of the Slicer side share: an empty scene of slicer-core, the phantom as nodes, a model to run."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def scene():
    """``slicer`` with an empty scene; skipped where slicer-core has no wheel for this machine."""
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    from stand_ins import core

    core.install()
    core.new_scene()
    import slicer

    yield slicer
    slicer.mrmlScene.Clear(1)


@pytest.fixture(scope="session")
def phantom_images():
    """A part of the phantom with the tumour in it, small enough for a run in a second."""
    from TeachFormerCore.data.phantom import thigh_phantom

    return {name: image[10:60, 10:60, 10:50] for name, image in thigh_phantom().images.items()}


@pytest.fixture
def phantom(scene, phantom_images):
    """Its CT and PET in the scene."""
    from stand_ins import core

    return SimpleNamespace(**{n: core.volume_from(image, f"Phantom {n}") for n, image in phantom_images.items()})


@pytest.fixture
def tiny(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A model of random weights in the list of models, with a code; answers its `models.Model`."""
    models = tmp_path / "models"
    monkeypatch.setenv("TEACHFORMER_MODELS", str(models))
    shutil.copytree(tiny_model, models / "tiny")
    card = json.loads((models / "tiny" / "model.json").read_text(encoding="utf-8"))
    card["labels"][0]["terminology"] = {
        "category": ["SCT", "49755003", "Morphologically altered structure"],
        "type": ["SCT", "86049000", "Neoplasm, Primary"],
    }
    (models / "tiny" / "model.json").write_text(json.dumps(card), encoding="utf-8")
    from stand_ins import core

    core.install()
    from TeachFormerLib.models import listModels

    return next(model for model in listModels() if model.name == "tiny")


@pytest.fixture
def panel(scene, tiny):
    """The module's panel, shown, with the tiny model chosen."""
    from stand_ins import gui

    gui.install()
    gui.ASKED.clear()
    gui.ANSWERS.update(file="", confirm=True)
    widget = gui.module_class("TeachFormerWidget")()
    widget.setup()
    widget.parent.isEntered = True
    widget.panel.devices = {"versions": {}, "devices": [{"id": "cpu", "name": "Processor", "free_bytes": 8e9}]}
    widget.enter()
    widget.panel.chooseModel("tiny")
    widget.panel.tick()
    widget.panel.widget = widget
    yield widget.panel
    widget.cleanup()


@pytest.fixture
def loaded(panel, phantom):
    """The phantom, taken up by the panel."""
    panel.tick()
    return phantom
