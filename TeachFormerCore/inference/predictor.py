"""From images in physical space to a mask and its maps on the reference's exact grid."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..data.grid import Grid, patient_grid
from ..data.image import voxels
from ..data.preparation import to_model_grid
from ..errors import InputError
from .body import body_box
from .card import Card, card_channels
from .grad_cam import grad_cam
from .inputs import check_inputs, input_notices
from .ladder import down_the_ladder
from .memory_plan import MemoryPlan, plan_memory
from .model_folder import find_model, read_card
from .placing import Placing
from .region import Region, region_notices
from .runtimes import open_runtime
from .runtimes.interface import Rung, Runtime, volumetric, window_of
from .windows import predict_windows

OnProgress = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class ModelMaps:
    """What a network says of a case, on the model's grid: float32 arrays.

    Attributes:
        probabilities: ``(classes, z, y, x)``, background first.
        fine: mean of |Q| over its channels ``(z, y, x)``.
        coarse: mean of |P| over its channels ``(z, y, x)``.
    """

    probabilities: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of a case; every image lies on the reference's grid.

    All but the label are brought there when they are asked for, and not kept: on a large image each takes its time and
    memory.

    Attributes:
        label: uint8, 0 the background.
        notices: sentences for the user: what was resampled, what is missing, how a lack of memory was met.
        maps: on the model's grid.
        image: what the network saw ``(M, z, y, x)``, on that grid.
        placing: the way from that grid to the reference's.
        explain: computes Grad-CAM ``(z, y, x)`` on that grid.
        seconds: that resample, network and post_process took.
    """

    label: sitk.Image
    notices: tuple[str, ...]
    maps: ModelMaps
    image: np.ndarray
    placing: Placing
    explain: Callable[[], np.ndarray]
    seconds: dict[str, float]

    @property
    def attention_fine(self) -> sitk.Image:
        """0..1, mean over channels of |Q|, the last decoder map."""
        return self.placing.place(unit_range(self.maps.fine))

    @property
    def attention_coarse(self) -> sitk.Image:
        """0..1, mean over channels of |P|, the encoder map at 1/16 of the resolution."""
        return self.placing.place(unit_range(self.maps.coarse))

    @property
    def attention_gradcam(self) -> sitk.Image:
        """0..1, what of the last decoder map speaks for the labels; computed with PyTorch when it is asked for."""
        return self.placing.place(unit_range(self.explain()))

    @property
    def uncertainty(self) -> sitk.Image:
        """0..1, entropy of the class probabilities over its largest value, the logarithm of their number."""
        return self.placing.place(normalised_entropy(self.maps.probabilities))

    @property
    def probabilities(self) -> list[sitk.Image]:
        """One float32 image per class, background first; where nothing was computed the background's is 1."""
        return [
            self.placing.place(values, outside=1.0 if number == 0 else 0.0)
            for number, values in enumerate(self.maps.probabilities)
        ]


class Predictor:
    """A model ready to run, on one device.

    Args:
        model: name or folder of a model; the shipped student unless given.
        device: auto, cpu, cuda, cuda:N, mps or intel:N.
        runtime: auto, torch, openvino or onnx.
        opened: one that is ready, in place of both.

    Raises:
        InputError: no such model, device or runtime, or a model that cannot be used.
        MissingDependencyError: the runtime is not installed.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        runtime: str = "auto",
        opened: Runtime | None = None,
    ) -> None:
        self.folder = find_model(model)
        self.card: Card = read_card(self.folder)
        self.channels = card_channels(self.card)
        self.window = window_of(self.card["image_size"])
        refused: list[str] = []
        self.runtime = opened or open_runtime(
            self.folder, self.card, device=device, runtime=runtime, on_gpu_refused=refused.append
        )
        self.notices = tuple(f"The GPU is not used, it is computed on the CPU: {why}" for why in refused)

    @property
    def device(self) -> str:
        """Where it is computed, e.g. ``cpu`` or ``cuda:0``."""
        return self.runtime.device

    def run(
        self,
        images: dict[str, sitk.Image],
        *,
        region: Region | None = None,
        on_progress: OnProgress = lambda part: None,
        on_plan: Callable[[MemoryPlan], None] = lambda plan: None,
    ) -> Prediction:
        """Segments one case.

        Args:
            images: 3D image per channel of the card, CT in HU, PET in SUV; the first channel is the reference. Others
                may lie on any grid that shares space with it.
            region: computes inside this box only; the result still covers the reference.
            on_progress: told the part that is done, 0..1; an exception it raises cancels.
            on_plan: told, before the network runs, how much memory it will take.

        Raises:
            InputError: images that cannot be used (see ``inputs.check_inputs``), or a field of view larger than the
                model was trained for.
            TeachFormerError: memory ran out, in whatever way it was tried.
        """
        check_inputs(images, self.card)
        reference = images[next(channel.name for channel in self.channels if channel.name in images)]
        whole = Grid.of(reference)
        start, size = region.start_and_size(whole) if region else ((0, 0, 0), whole.size)
        view = whole.part(start, size)
        self._check_field_of_view(view, region)

        times = [time.perf_counter()]
        grid = self._grid(view)
        image = to_model_grid(images, self.channels, grid)
        box = body_box(image, self.window)
        inside = (slice(None), *box)
        image = np.ascontiguousarray(image[inside])
        grid = grid.part([part.start for part in reversed(box)], image.shape[:0:-1])
        on_progress(0.1)
        times.append(time.perf_counter())
        maps, notice = self._maps(image, reference, on_plan, lambda part: on_progress(0.1 + 0.7 * part))

        times.append(time.perf_counter())
        placing = Placing(model_grid=grid, reference=reference, start=tuple(start), size=tuple(size))
        label = placing.label(maps.probabilities)
        times.append(time.perf_counter())
        notices = [*self.notices, *input_notices(images, self.card, computed=view)]
        notices += region_notices(region, whole, voxels(label)) if region else []
        prediction = Prediction(
            label=label,
            notices=(*notices, *([notice] if notice else [])),
            maps=maps,
            image=image,
            placing=placing,
            explain=lambda: grad_cam(self.folder, self.card, image, device=self.device),
            seconds=dict(zip(("resample", "network", "post_process"), np.diff(times).tolist(), strict=True)),
        )
        on_progress(1.0)
        return prediction

    def _grid(self, view: Grid) -> Grid:
        """The model's grid; a 2D model takes axial slices as they come."""
        x, y, z = self.card["spacing"]
        if len(self.card["image_size"]) == 2:
            z = view.spacing[int(np.argmax(np.abs(view.direction[6:])))]
        return patient_grid(view, (x, y, z))

    def _maps(
        self,
        image: np.ndarray,
        reference: sitk.Image,
        on_plan: Callable[[MemoryPlan], None],
        on_progress: OnProgress,
    ) -> tuple[ModelMaps, str | None]:
        def plan(rung: Rung) -> MemoryPlan:
            return plan_memory(
                rung,
                image=image.shape[1:],
                channels=len(image),
                classes=1 + len(self.card["labels"]),
                reference=reference.GetSize(),
            )

        def attempt(rung: Rung) -> ModelMaps:
            on_plan(plan(rung))
            maps = predict_windows(
                volumetric(rung.runtime, len(self.card["image_size"])),
                rung.runtime.array(image),
                window=rung.window,
                batch=rung.batch,
                on_windows=lambda done, total: on_progress(done / total),
            )
            arrays = {
                name: values if isinstance(values, np.ndarray) else values.cpu().numpy()
                for name, values in vars(maps).items()
            }
            return ModelMaps(**arrays)

        return down_the_ladder(self._rungs(), attempt, fits=lambda rung: plan(rung).fits())

    def _rungs(self) -> Iterator[Rung]:
        """The runtime's own; where it is not on the processor, then those of the same library there."""
        yield from self.runtime.rungs(self.window)
        if self.device != "cpu":
            there = open_runtime(self.folder, self.card, device="cpu", runtime=self.runtime.name)
            yield from there.rungs(self.window)

    def _check_field_of_view(self, grid: Grid, region: Region | None) -> None:
        largest = self.card["field_of_view_mm"]
        # A millimetre of tolerance: grids that were resampled gain up to a voxel.
        if largest is None or all(a <= b + 1 for a, b in zip(grid.field_of_view_mm(), largest, strict=True)):
            return
        extent, limit = (" x ".join(f"{n:.0f}" for n in numbers) for numbers in (grid.field_of_view_mm(), largest))
        subject, give = ("region", "a smaller") if region else ("image", "a box with")
        raise InputError(
            f"{self.card['region_hint']} The {subject} covers {extent} mm, the model knows up to {limit} mm "
            f"(left-right, front-back, along the body): give {give} --region-ras CX,CY,CZ,RX,RY,RZ."
        )


def unit_range(values: np.ndarray) -> np.ndarray:
    """Values linearly brought to 0..1 (all 0 where they do not differ)."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def normalised_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of ``(classes, *S)`` over log(classes): 0 certain, 1 undecided."""
    entropy = -(probabilities * np.log(np.clip(probabilities, 1e-12, 1))).sum(axis=0)
    return np.clip(entropy / np.log(len(probabilities)), 0, 1)
