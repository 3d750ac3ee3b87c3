"""The models that are installed, as the panel lists them."""

from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

CARD = "model.json"


@dataclass(frozen=True)
class Model:
    """A model folder, described; ``fault`` is set, and little else, where its card cannot be read."""

    folder: Path
    card: dict
    shipped: bool
    fault: str = ""

    @property
    def name(self):
        return self.card.get("name", self.folder.name)

    @property
    def channels(self):
        """``(name, modality)`` each."""
        return [(channel["name"], channel["modality"]) for channel in self.card.get("channels", ())]

    @property
    def segments(self):
        return ", ".join(label["name"] for label in self.card.get("labels", ()))

    @property
    def inputs(self):
        return " + ".join(
            channel["name"] + (" " + _("(optional)") if channel["optional"] else "")
            for channel in self.card.get("channels", ())
        )

    @property
    def licence(self):
        return str(self.card.get("training", {}).get("licence") or "-")

    @property
    def intendedUse(self):
        return self.card.get("intended_use", "")

    def seconds(self, deviceType):
        """E.g. ``7.7 s``; what was measured for the device's type (cpu, cuda, mps), ``-`` where nothing was."""
        value = self.card.get("seconds", {}).get(deviceType)
        return f"{value:.1f} s" if isinstance(value, (int, float)) else "-"

    @property
    def size(self):
        """E.g. ``6.1 MB``."""
        files = [file for file in self.folder.rglob("*") if file.is_file()]
        return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"

    def has(self, runtime):
        """Whether the folder holds a file that a runtime computes: ``openvino``, which reads both, or ``onnx``."""
        files = {"openvino": ("openvino", "model.onnx"), "onnx": ("model.onnx",)}[runtime]
        return any((self.folder / file).exists() for file in files)

    def matches(self, text):
        """Whether every word of a search text is in what the list shows."""
        shown = " ".join([self.name, self.segments, self.inputs, self.card.get("description", ""), self.licence])
        return all(word in shown.lower() for word in text.lower().split())


def listModels():
    """Every installed model, the shipped ones first; one whose card is damaged is listed with its fault."""
    from TeachFormerCore.errors import InputError
    from TeachFormerCore.inference.card import read_card_file
    from TeachFormerCore.inference.model_folder import model_folders
    from TeachFormerCore.paths import SHIPPED_MODELS

    models = []
    for folder in model_folders():
        shipped = folder.parent == SHIPPED_MODELS
        try:
            models.append(Model(folder=folder, card=read_card_file(folder / CARD), shipped=shipped))
        except InputError as error:
            models.append(Model(folder=folder, card={}, shipped=shipped, fault=str(error)))
    return models
