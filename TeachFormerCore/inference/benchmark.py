"""Times and memory of one way to compute one case, measured in a process of its own for ``teachformer bench``.

The case is the phantom, mirrored until it fills the model's grid: nothing of it is air that could be left out.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..data.grid import Grid, patient_grid, resample
from ..data.image import OutputFiles, image_like, voxels
from ..data.phantom import thigh_phantom
from ..data.preparation import to_model_grid
from ..errors import missing_dependency
from .card import Card, card_channels
from .inputs import read_inputs
from .model_folder import read_card
from .predictor import Predictor
from .runtimes import Candidate, agreement

STAGES = ("read", "resample", "network", "post_process", "write")
PLAIN = "plain"  # the way of a tutorial
PLAIN_OVERLAP = 0.5


def write_case(card: Card, size: int, folder: Path) -> dict[str, Path]:
    """Images of a model's channels on its grid, ``size`` voxels along each axis or what its field of view allows."""
    phantom = thigh_phantom()
    spacing = np.array(card["spacing"])
    limit = np.floor(np.array(card["field_of_view_mm"] or [np.inf] * 3) / spacing)
    target = np.minimum(size, limit).astype(int)[::-1]
    files = {}
    for channel in card_channels(card):
        image = phantom.images["PET" if channel.modality == "PET" else "CT"]
        array = voxels(resample(image, patient_grid(Grid.of(image), tuple(spacing))))
        for axis, wanted in enumerate(target):
            missing = max(0, wanted - array.shape[axis])
            sides = [(missing // 2, missing - missing // 2) if number == axis else (0, 0) for number in range(3)]
            array = np.pad(array.take(range(min(wanted, array.shape[axis])), axis), sides, mode="symmetric")
        made = sitk.GetImageFromArray(array if channel.modality == "PET" else array.astype(np.int16))
        made.SetSpacing(spacing.tolist())
        files[channel.name] = folder / f"{channel.name}.nii.gz"
        sitk.WriteImage(made, str(files[channel.name]), True)
    return files


def measure(candidate: Candidate | None, model: Path, pairs: list[str], output: Path, repeats: int) -> dict[str, Any]:
    """Runs a case several times in this process, from its files to its written mask.

    Args:
        candidate: the runtime; None for the plain way.
        pairs: ``NAME=path`` each.
        output: the mask of the last run.

    Returns:
        {open, read, resample, network, post_process, write, total (medians, seconds), processor_seconds (of all cores,
        the last run), peak_bytes}.

    Raises:
        UnsuitableError: the runtime cannot serve the model here.
        MissingDependencyError: it, or for the plain way MONAI, is not installed.
    """
    card = read_card(model)
    start = time.perf_counter()
    predictor = candidate and Predictor(model, opened=candidate.open(model, card))
    run = _ours(predictor) if predictor else _plain(model, card)
    opened = time.perf_counter() - start
    rows: list[dict[str, float]] = []
    for _ in range(repeats):
        processor, start = time.process_time(), time.perf_counter()
        images = read_inputs(pairs, card).images
        seconds = {"read": time.perf_counter() - start}
        label, stages = run(images)
        before = time.perf_counter()
        with OutputFiles() as files:
            files.write_image(label, output)
        seconds |= stages | {"write": time.perf_counter() - before}
        rows.append(seconds | {"total": time.perf_counter() - start})
        processor = time.process_time() - processor
    medians = {stage: statistics.median(row[stage] for row in rows) for stage in (*STAGES, "total")}
    result = {"open": opened, **medians, "processor_seconds": processor, "peak_bytes": peak_bytes()}
    if candidate and predictor:  # whether it agrees or not is remembered for --runtime auto
        key = agreement.memory_key(card, name=candidate.name, device=candidate.device, precision=candidate.precision)
        agreement.remember(key, agreement.measure_agreement(predictor.runtime, model, card))
    return result


def peak_bytes() -> int | None:
    """The largest memory of this process so far, or None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


Run = Callable[[dict[str, sitk.Image]], tuple[sitk.Image, dict[str, float]]]


def _ours(predictor: Predictor) -> Run:
    def run(images: dict[str, sitk.Image]) -> tuple[sitk.Image, dict[str, float]]:
        prediction = predictor.run(images)
        return prediction.label, prediction.seconds

    return run


def _plain(model: Path, card: Card) -> Run:
    """PyTorch in float32, MONAI's windows with half overlap, and every class resampled to full size."""
    import torch

    try:
        from monai.inferers import sliding_window_inference
    except ImportError as error:
        raise missing_dependency("monai", extra="report", purpose="compare with the plain way") from error
    from .model_folder import load_network

    network = load_network(model, card)
    channels = card_channels(card)

    @torch.inference_mode()
    def run(images: dict[str, sitk.Image]) -> tuple[sitk.Image, dict[str, float]]:
        times = [time.perf_counter()]
        reference = images[channels[0].name]
        grid = patient_grid(Grid.of(reference), tuple(card["spacing"]))
        image = torch.from_numpy(to_model_grid(images, channels, grid))[None]
        times.append(time.perf_counter())
        logits = sliding_window_inference(
            image, card["image_size"], 1, network, overlap=PLAIN_OVERLAP, mode="gaussian", padding_mode="constant"
        )
        times.append(time.perf_counter())
        full = []
        for values in logits[0].softmax(0).numpy():
            small = sitk.GetImageFromArray(values)
            small.SetOrigin(grid.origin)
            small.SetSpacing(grid.spacing)
            small.SetDirection(grid.direction)
            full.append(voxels(resample(small, Grid.of(reference))))
        label = image_like(np.stack(full).argmax(0).astype(np.uint8), reference)
        times.append(time.perf_counter())
        stages = ("resample", "network", "post_process")
        return label, dict(zip(stages, np.diff(times).tolist(), strict=True))

    return run
