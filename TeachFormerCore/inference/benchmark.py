"""Times and memory of one way to compute one case, measured in a process of its own for ``teachformer bench``.

The case is the phantom, mirrored until it fills the model's grid: nothing of it is air that could be left out.
"""

import statistics
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
from ..devices import peak_memory
from ..errors import missing_dependency
from .card import Card, card_channels
from .inputs import read_inputs
from .model_folder import read_card
from .predictor import Predictor
from .runtimes import Candidate, agreement

STAGES = ("read", "resample", "network", "post_process", "write")
PLAIN = "plain"  # the way of a tutorial
PLAIN_OVERLAP = 0.5


# What a scanner gives: voxels (x, y, z) in mm of a CT or MR, and of a PET.
SCANNER_MM = {"CT": (1.0, 1.0, 2.0), "MR": (1.0, 1.0, 2.0), "PET": (4.0, 4.0, 2.0)}


def write_case(card: Card, size: int, folder: Path, *, as_scanned: bool = False) -> dict[str, Path]:
    """Images of a model's channels, over ``size`` voxels of its grid along each axis or what its field of view allows.

    They lie on the model's grid, or ``as_scanned`` on a scanner's of the same extent.
    """
    phantom = thigh_phantom()
    spacing = np.array(card["spacing"])
    limit = np.floor(np.array(card["field_of_view_mm"] or [np.inf] * 3) / spacing)
    extent = np.minimum(size, limit) * spacing
    files = {}
    for channel in card_channels(card):
        image = phantom.images["PET" if channel.modality == "PET" else "CT"]
        voxel = np.array(SCANNER_MM[channel.modality]) if as_scanned else spacing
        target = np.rint(extent / voxel).astype(int)[::-1]
        array = voxels(resample(image, patient_grid(Grid.of(image), tuple(voxel))))
        for axis, wanted in enumerate(target):
            missing = max(0, wanted - array.shape[axis])
            sides = [(missing // 2, missing - missing // 2) if number == axis else (0, 0) for number in range(3)]
            array = np.pad(array.take(range(min(wanted, array.shape[axis])), axis), sides, mode="symmetric")
        made = sitk.GetImageFromArray(array if channel.modality == "PET" else array.astype(np.int16))
        made.SetSpacing(voxel.tolist())
        made.SetOrigin((voxel / 2).tolist())  # the first voxel's corner, not its centre, is where all images begin
        files[channel.name] = folder / f"{channel.name}.nii.gz"
        sitk.WriteImage(made, str(files[channel.name]), True)
    return files


def measure(
    candidate: Candidate | None, model: Path, pairs: list[str], output: Path, repeats: int, *, device: str = "cpu"
) -> dict[str, Any]:
    """Runs a case several times in this process, from its files to its written mask.

    Args:
        candidate: the runtime; None for the plain way.
        pairs: ``NAME=path`` each.
        output: the mask of the last run.
        device: of the plain way, where PyTorch serves it; else the CPU.

    Returns:
        {open (seconds), read, resample, network, post_process, write, total, processor_seconds (of all cores; medians),
        fastest, slowest (seconds in total), peak_bytes}.

    Raises:
        UnsuitableError: the runtime cannot serve the model here.
        MissingDependencyError: it, or for the plain way MONAI, is not installed.
    """
    card = read_card(model)
    start = time.perf_counter()
    predictor = candidate and Predictor(model, opened=candidate.open(model, card))
    run = (
        _ours(predictor) if predictor else _plain(model, card, device if device.startswith(("cuda", "mps")) else "cpu")
    )
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
        seconds |= {"total": time.perf_counter() - start, "processor_seconds": time.process_time() - processor}
        rows.append(seconds)
    medians = {stage: statistics.median(row[stage] for row in rows) for stage in rows[0]}
    totals = [row["total"] for row in rows]
    spread = {"fastest": min(totals), "slowest": max(totals)}
    result = {"open": opened, **medians, **spread, "peak_bytes": peak_memory()}
    if candidate and predictor:  # whether it agrees or not is remembered for --runtime auto
        key = agreement.memory_key(card, name=candidate.name, device=candidate.device, precision=candidate.precision)
        agreement.remember(key, agreement.measure_agreement(predictor.runtime, model, card))
    return result


Run = Callable[[dict[str, sitk.Image]], tuple[sitk.Image, dict[str, float]]]


def _ours(predictor: Predictor) -> Run:
    def run(images: dict[str, sitk.Image]) -> tuple[sitk.Image, dict[str, float]]:
        prediction = predictor.run(images)
        return prediction.label, prediction.seconds

    return run


def _plain(model: Path, card: Card, device: str) -> Run:
    """PyTorch in float32, MONAI's windows with half overlap, and every class resampled to full size."""
    import torch

    try:
        from monai.inferers import sliding_window_inference
    except ImportError as error:
        raise missing_dependency("monai", extra="report", purpose="compare with the plain way") from error
    from .model_folder import load_network

    network = load_network(model, card).to(device)
    channels = card_channels(card)

    @torch.inference_mode()
    def run(images: dict[str, sitk.Image]) -> tuple[sitk.Image, dict[str, float]]:
        times = [time.perf_counter()]
        reference = images[channels[0].name]
        grid = patient_grid(Grid.of(reference), tuple(card["spacing"]))
        image = torch.from_numpy(to_model_grid(images, channels, grid))[None].to(device)
        times.append(time.perf_counter())
        logits: Any = sliding_window_inference(
            image, card["image_size"], 1, network, overlap=PLAIN_OVERLAP, mode="gaussian", padding_mode="constant"
        )
        logits = logits.cpu()
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
