"""Whether a runtime gives the masks of PyTorch in float32: asked once per machine and model, then remembered.

The question is put on one window of the phantom. The answer of PyTorch travels with exported graphs, so that PyTorch
itself is not needed.
"""

import contextlib
import hashlib
import json
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...data.grid import Grid, patient_grid
from ...data.image import OutputFiles
from ...data.phantom import thigh_phantom
from ...data.preparation import to_model_grid
from ...devices import cpu_name
from ...errors import TeachFormerError
from ...paths import user_cache_folder
from ...versions import installed_version
from ..card import Card, card_channels
from .interface import Runtime, volumetric, window_of

REFERENCE = "reference.safetensors"
ENOUGH = 0.999
# A network that calls less than this part of the window something else than the rest, as one for another organ will,
# would agree with everything.
FEWEST = 0.002
PACKAGES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a runtime's masks agree with those of PyTorch in float32.

    Attributes:
        dice: the lowest of a class.
        seconds: per window; on the CPU those of all cores together, which other programs disturb less.
    """

    dice: float
    seconds: float

    @property
    def is_enough(self) -> bool:
        """Whether the runtime may be used."""
        return self.dice >= ENOUGH


def measure_agreement(runtime: Runtime, folder: Path, card: Card) -> Agreement:
    """Runs one window, twice: the first time is longer."""
    reference, threshold = _reference(folder, card)
    forward = volumetric(runtime, len(card["image_size"]))
    windows = runtime.array(example(card))[None]
    clock = time.process_time if runtime.device == "cpu" else time.perf_counter
    seconds = []
    for _ in range(2):
        start = clock()
        logits = _numpy(forward(windows)[0])[0]
        seconds.append(clock() - start)
    return Agreement(dice=lowest_dice(_decide(logits, threshold), reference), seconds=min(seconds))


def example(card: Card) -> np.ndarray:
    """The phantom on the model's grid, mirrored until it fills one window ``(M, *window)``; an MR is made of its CT.

    Mirrored, since a large window would hold little but air, in which a network has nothing to decide.
    """
    phantom = thigh_phantom()
    channels = card_channels(card)
    makes = {"CT": phantom.images["CT"], "PET": phantom.images["PET"], "MR": phantom.images["CT"] + 1024}
    grid = patient_grid(Grid.of(phantom.label), tuple(card["spacing"]))
    image = to_model_grid({channel.name: makes[channel.modality] for channel in channels}, channels, grid)
    for axis, target in enumerate(window_of(card["image_size"]), start=1):
        have = image.shape[axis]
        start = max(0, (have - target) // 2)
        image = image.take(range(start, min(have, start + target)), axis)
        missing = target - image.shape[axis]
        sides = [(0, 0)] * image.ndim
        sides[axis] = (missing // 2, missing - missing // 2)
        image = np.pad(image, sides, mode="symmetric")
    return np.ascontiguousarray(image)


def make_reference(runtime: Runtime, card: Card) -> dict[str, np.ndarray]:
    """What is stored of PyTorch's answer in float32: ``labels`` (compressed) and ``threshold``."""
    image = example(card)
    logits = _numpy(volumetric(runtime, len(card["image_size"]))(runtime.array(image)[None])[0])[0]
    threshold = telling_threshold(logits[1:].max(0) - logits[0], body=(image != 0).any(0))
    labels = zlib.compress(_decide(logits, threshold).tobytes())
    return {"labels": np.frombuffer(labels, np.uint8).copy(), "threshold": np.array([threshold], np.float32)}


def telling_threshold(margin: np.ndarray, *, body: np.ndarray) -> float:
    """Where a decision over ``margin`` (highest logit but the background's, minus the background's) can be compared.

    0, the network's own, if it finds something. Else in the widest gap between the upper percentiles of the body's
    voxels, where the fewest lie so near that rounding decides.
    """
    part = float((margin > 0).mean())
    if FEWEST < part < 1 - FEWEST:
        return 0.0
    levels = np.percentile(margin[body] if body.any() else margin, np.arange(50, 91))
    widest = int(np.argmax(np.diff(levels)))
    return float(levels[widest : widest + 2].mean())


def lowest_dice(labels: np.ndarray, reference: np.ndarray) -> float:
    """The lowest Dice over the classes of either but the background; 1 where there is none."""
    values = [1.0]
    for value in set(np.unique(labels)) | set(np.unique(reference)):
        mine, theirs = labels == value, reference == value
        if value:
            values.append(2 * float((mine & theirs).sum()) / float(mine.sum() + theirs.sum()))
    return min(values)


def remembered(key: str) -> Agreement | None:
    """What was measured on this machine, or None."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Agreement(**json.loads(_file(key).read_text(encoding="utf-8")))
    return None


def remember(key: str, agreement: Agreement) -> None:
    """Keeps it in the user's cache folder; where that cannot be written, it is measured again next time."""
    with contextlib.suppress(OSError, TeachFormerError):
        _file(key).parent.mkdir(parents=True, exist_ok=True)
        with OutputFiles() as files:
            files.write_text(json.dumps(asdict(agreement)), _file(key))


def memory_key(card: Card, *, name: str, device: str, precision: str) -> str:
    """Changes with the model's files, the versions, the processor and the device."""
    versions = {package: installed_version(package) for package in ("numpy", "SimpleITK", PACKAGES[name])}
    facts = [card["files"], card["spacing"], card["channels"], name, device, precision, versions, __version__]
    return hashlib.sha256(json.dumps([facts, cpu_name()], sort_keys=True).encode()).hexdigest()[:32]


def _file(key: str) -> Path:
    return user_cache_folder() / "agreement" / f"{key}.json"


def _reference(folder: Path, card: Card) -> tuple[np.ndarray, float]:
    if REFERENCE in card["files"]:
        from safetensors.numpy import load_file

        stored = load_file(folder / REFERENCE)
    else:
        from .torch_runtime import open_runtime

        stored = make_reference(open_runtime(folder, card, "cpu", "fp32"), card)
    labels = np.frombuffer(zlib.decompress(stored["labels"].tobytes()), np.uint8)
    return labels.reshape(window_of(card["image_size"])), float(stored["threshold"][0])


def _decide(logits: np.ndarray, threshold: float) -> np.ndarray:
    """The class ``(*window)`` whose logit is highest, the background's raised by a threshold."""
    raised = logits.astype(np.float32)
    raised[0] += threshold
    return raised.argmax(0).astype(np.uint8)


def _numpy(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.float().cpu().numpy()
