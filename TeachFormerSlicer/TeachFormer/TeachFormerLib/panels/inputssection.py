"""Which volumes are the model's channels, what their values are, and where to compute."""

from slicer.i18n import tr as _

from ..geometry import GeometryError
from ..parameters import CHANNELS, PetValues
from .section import Section, setText


class InputsSection(Section):
    UI = "InputsPanel"

    def __init__(self, panel):
        super().__init__(panel)
        self._filled = None
        self.ui.placeBoxButton.clicked.connect(self.onPlaceBox)

    def refill(self):
        """Chooses volumes for channels without one; called when the model or the scene's volumes change."""
        model = self.model
        if model is None or model.fault:
            return
        known = (model.name, tuple(self.logic.inputVolumes()))
        if known != self._filled:
            self._filled = known
            self.logic.fillChannels(self.parameters, model)

    def update(self):
        model = self.model
        channels = model.card["channels"] if model and not model.fault else []
        resampled = self.logic.resampled(self.parameters, model) if channels else {}
        reasons = self.logic.channelReasons(self.parameters, model) if channels else []
        for number in range(CHANNELS):
            label, selector, reason = (
                getattr(self.ui, f"channel{number + 1}{part}") for part in ("Label", "Selector", "Reason")
            )
            used = number < min(len(channels), CHANNELS)
            for widget in (label, selector, reason):
                widget.setVisible(used)
            if not used:
                continue
            channel = channels[number]
            optional = " " + _("(optional)") if channel["optional"] else ""
            label.setText(f"{channel['name']}{optional}:")
            told = [reasons[number], resampled.get(channel["name"], "")]
            setText(reason, "; ".join(part for part in told if part))
        pet = bool(channels) and bool(self.logic.petChannels(model))
        for widget in (self.ui.petValuesLabel, self.ui.petValuesSelector):
            widget.setVisible(pet)
        self.ui.suvFactorBox.setVisible(pet and self.parameters.petValues == PetValues.BQML)
        self.ui.placeBoxButton.setEnabled(bool(channels) and bool(self.logic.volumes(self.parameters, model)))

    def onPlaceBox(self, *_args):
        try:
            self.logic.placeBox(self.parameters, self.model)
        except GeometryError as error:
            self.panel.say(str(error))
            return
        self.panel.touch()
