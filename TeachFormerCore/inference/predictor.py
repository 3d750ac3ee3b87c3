"""From images in physical space to a mask and its maps on the reference's exact grid."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..data.grid import Grid, patient_grid, resample
from ..data.image import image_like, voxels
from ..data.preparation import to_model_grid
from ..devices import choose_device, has_fast_bf16, prefer_layout
from ..errors import InputError
from .card import Card, card_channels
from .inputs import check_inputs
from .model_folder import find_model, load_network, read_card
from .region import Region, crop
from .windows import WindowedMaps, predict_windows

RUNTIMES = ("auto", "torch")

OnProgress = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of a case; every image lies on the reference's grid.

    Attributes:
        label: uint8, 0 the background.
        attention_fine: 0..1, mean over channels of |Q|, the last decoder map.
        attention_coarse: 0..1, mean over channels of |P|, the encoder map at 1/16 of the resolution.
        uncertainty: 0..1, entropy of the class probabilities over its largest value, the logarithm of their number.
        notices: sentences for the user: what was resampled.
    """

    label: sitk.Image
    attention_fine: sitk.Image
    attention_coarse: sitk.Image
    uncertainty: sitk.Image
    notices: tuple[str, ...]
    _probabilities: np.ndarray
    _placing: "Placing"

    @property
    def probabilities(self) -> list[sitk.Image]:
        """One float32 image per class, background first; outside a region the background's is 1."""
        return [
            self._placing.place(values, outside=1.0 if number == 0 else 0.0)
            for number, values in enumerate(self._probabilities)
        ]


class Predictor:
    """A model ready to run, on one device.

    Args:
        model: name or folder of a model; the shipped student unless given.
        device: auto, cpu, cuda, cuda:N or mps.
        runtime: auto or torch.

    Raises:
        InputError: no such model, device or runtime, or a model that cannot be used.
    """

    def __init__(self, model: str | Path | None = None, *, device: str = "auto", runtime: str = "auto") -> None:
        if runtime not in RUNTIMES:
            raise InputError(f"There is no runtime '{runtime}': use one of {', '.join(RUNTIMES)}.")
        self.folder = find_model(model)
        self.card: Card = read_card(self.folder)
        self.channels = card_channels(self.card)
        self.device = choose_device(device)
        self.network = prefer_layout(load_network(self.folder, self.card).to(self.device), self.device)

    def run(
        self,
        images: dict[str, sitk.Image],
        *,
        region: Region | None = None,
        on_progress: OnProgress = lambda part: None,
    ) -> Prediction:
        """Segments one case.

        Args:
            images: 3D image per channel of the card, CT in HU, PET in SUV; the first channel is the reference. Others
                may lie on any grid that shares space with it.
            region: computes inside this box only; the result still covers the reference.
            on_progress: told the part that is done, 0..1; an exception it raises cancels.

        Raises:
            InputError: images that cannot be used (see ``inputs.check_inputs``), or a field of view larger than the
                model was trained for.
        """
        check_inputs(images, self.card)
        names = [channel.name for channel in self.channels if channel.name in images]
        reference = images[names[0]]
        notices = tuple(
            f"{name} ({Grid.of(images[name]).describe()}) was resampled onto the grid of {names[0]} "
            f"({Grid.of(reference).describe()})."
            for name in names[1:]
            if not Grid.of(images[name]).same_as(Grid.of(reference))
        )
        view, start = crop(reference, region) if region else (reference, (0, 0, 0))
        self._check_field_of_view(Grid.of(view), region)

        x, y, z = self.card["spacing"]
        grid = patient_grid(Grid.of(view), (x, y, z))
        image = torch.from_numpy(to_model_grid(images, self.channels, grid))
        maps = self._forward(image, lambda done, total: on_progress(0.1 + 0.7 * done / total))
        placing = Placing(model_grid=grid, view=view, reference=reference, start=start)
        probabilities = maps.probabilities.cpu().numpy()
        prediction = Prediction(
            label=placing.label(probabilities),
            attention_fine=placing.place(unit_range(maps.fine.cpu().numpy())),
            attention_coarse=placing.place(unit_range(maps.coarse.cpu().numpy())),
            uncertainty=placing.place(normalised_entropy(probabilities)),
            notices=notices,
            _probabilities=probabilities,
            _placing=placing,
        )
        on_progress(1.0)
        return prediction

    @torch.inference_mode()
    def _forward(self, image: torch.Tensor, on_windows: Callable[[int, int], None]) -> WindowedMaps:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=has_fast_bf16(self.device)):
            return predict_windows(
                self.network.forward_with_attention,
                image.to(self.device),
                window=self.card["image_size"],
                on_windows=on_windows,
            )

    def _check_field_of_view(self, grid: Grid, region: Region | None) -> None:
        largest = self.card["field_of_view_mm"]
        # A millimetre of tolerance: grids that were resampled gain up to a voxel.
        if largest is None or all(a <= b + 1 for a, b in zip(grid.field_of_view_mm(), largest, strict=True)):
            return
        extent, limit = (" x ".join(f"{n:.0f}" for n in numbers) for numbers in (grid.field_of_view_mm(), largest))
        subject = "region" if region else "image"
        raise InputError(
            f"{self.card['region_hint']} The {subject} covers {extent} mm, the model knows up to {limit} mm "
            "(left-right, front-back, along the body): give a smaller --region-ras CX,CY,CZ,RX,RY,RZ."
        )


@dataclass(frozen=True, kw_only=True)
class Placing:
    """The way back from the model's grid to the reference, through the part of it that was computed.

    Attributes:
        model_grid: where the arrays lie.
        view: the computed part of the reference.
        reference: the whole.
        start: index (x, y, z) of the view in the reference.
    """

    model_grid: Grid
    view: sitk.Image
    reference: sitk.Image
    start: tuple[int, ...]

    def place(self, values: np.ndarray, *, outside: float = 0.0) -> sitk.Image:
        """An array ``(z, y, x)`` of the model's grid as a float32 image on the reference's, linearly interpolated."""
        return self._whole(resample(self._image(values), Grid.of(self.view), background=outside), outside)

    def label(self, probabilities: np.ndarray) -> sitk.Image:
        """The most probable class per voxel of the reference, uint8, from ``(classes, z, y, x)``.

        Probabilities are interpolated and compared, one class at a time, which gives smooth borders and never holds all
        classes at full size.
        """
        grid = Grid.of(self.view)
        best = np.array(voxels(resample(self._image(probabilities[0]), grid, background=1.0)))
        label = np.zeros(best.shape, np.uint8)
        for number, values in enumerate(probabilities[1:], start=1):
            rival = voxels(resample(self._image(values), grid))
            wins = rival > best
            label[wins] = number
            np.maximum(best, rival, out=best)
        return self._whole(image_like(label, self.view), 0)

    def _image(self, values: np.ndarray) -> sitk.Image:
        image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
        image.SetOrigin(self.model_grid.origin)
        image.SetSpacing(self.model_grid.spacing)
        image.SetDirection(self.model_grid.direction)
        return image

    def _whole(self, view: sitk.Image, outside: float) -> sitk.Image:
        if view.GetSize() == self.reference.GetSize():
            whole = view
        else:
            whole = sitk.Image(self.reference.GetSize(), view.GetPixelID()) + outside
            whole = sitk.Paste(whole, view, view.GetSize(), (0, 0, 0), self.start)
        # Bit for bit the reference's geometry, not a rounding of it.
        whole.CopyInformation(self.reference)
        return whole


def unit_range(values: np.ndarray) -> np.ndarray:
    """Values linearly brought to 0..1 (all 0 where they do not differ)."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def normalised_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of ``(classes, *S)`` over log(classes): 0 certain, 1 undecided."""
    entropy = -(probabilities * np.log(np.clip(probabilities, 1e-12, 1))).sum(axis=0)
    return np.clip(entropy / np.log(len(probabilities)), 0, 1)
