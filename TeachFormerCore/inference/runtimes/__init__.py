"""The libraries that can compute a network, behind one interface, and the choice among them."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...devices import choose_device, gpu_is_possible
from ...errors import InputError, MissingDependencyError, TeachFormerError
from ..card import Card
from .interface import Runtime, UnsuitableError

RUNTIMES = ("torch", "openvino", "onnx")
# Seconds of CPU that S1 took for a window of 144^3 where bfloat16 is native (AMX): the order in which they are tried
# until ``teachformer bench`` has measured them on this machine. Without bfloat16 it is the same order.
EXPECTED_SECONDS = {
    ("openvino", "bf16"): 1.2,
    ("openvino", "fp32"): 2.0,
    ("torch", "bf16"): 2.5,
    ("onnx", "fp32"): 4.4,
    ("torch", "fp32"): 5.5,
}
ON_GPU = {("torch", "bf16"): 1.0, ("torch", "fp16"): 1.1, ("torch", "fp32"): 2.0, ("onnx", "fp32"): 3.0}
ON_INTEL_GPU = {("openvino", "fp16"): 1.0, ("openvino", "fp32"): 2.0}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A runtime that might serve a model here; nothing is loaded yet.

    Attributes:
        name: torch, openvino or onnx.
        device: e.g. ``cpu``, ``cuda:0``, ``intel:0``.
        precision: fp32, bf16 or fp16.
        expected_seconds: what it may take, in comparison to the others on that device.
    """

    name: str
    device: str
    precision: str
    expected_seconds: float

    def __str__(self) -> str:
        return f"{self.name} {self.precision} on {self.device}"

    def open(self, folder: Path, card: Card) -> Runtime:
        """Makes it ready.

        Raises:
            UnsuitableError: it cannot serve this model here.
            MissingDependencyError: its library is not installed.
        """
        module = importlib.import_module(f".{self.name}_runtime", __name__)
        return module.open_runtime(folder, card, self.device, self.precision)  # type: ignore[no-any-return]

    @property
    def is_the_measure(self) -> bool:
        """Whether it is what the others are measured against."""
        return (self.name, self.precision) == ("torch", "fp32")


def open_runtime(
    folder: Path,
    card: Card,
    *,
    device: str = "auto",
    runtime: str = "auto",
    on_gpu_refused: Callable[[str], None] = lambda why: None,
) -> Runtime:
    """The fastest runtime that is installed, serves the model on the device, and gives the masks of torch in float32.

    Args:
        folder: the model folder.
        device: auto, cpu, cuda, cuda:N, mps, or intel:N (OpenVINO only).
        runtime: auto, or the only library to use.
        on_gpu_refused: told why, where ``auto`` takes the processor though a GPU is there.

    Raises:
        InputError: no such runtime or device, or the named one cannot serve this model or disagrees with torch.
        MissingDependencyError: what is named, or everything, is not installed.
    """
    if runtime not in ("auto", *RUNTIMES):
        raise InputError(f"There is no runtime '{runtime}': use one of auto, {', '.join(RUNTIMES)}.")
    refused: dict[Candidate, Exception] = {}
    for candidate in candidates(card, device=device, runtime=runtime):
        try:
            opened = opened_if_it_agrees(candidate, folder, card)
        except (UnsuitableError, MissingDependencyError) as error:
            refused[candidate] = error
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            refused[candidate] = MissingDependencyError(
                f"PyTorch is not installed, and the model {folder} cannot be computed without it: pip install "
                "torch, or export the model with --runtime openvino,onnx and install one of these."
            )
        else:
            if device == "auto" and candidate.device == "cpu" and gpu_is_possible():
                reasons = (str(error) for one, error in refused.items() if one.device != "cpu")
                # The first was to be the fastest: its reason tells enough.
                on_gpu_refused(next(reasons, "no operation ran on it, see its driver."))
            return opened
    if not refused:
        raise InputError(f"The runtime {runtime} does not serve the device {device}: use --runtime auto.")
    errors = refused.values()
    missing = next((error for error in errors if isinstance(error, MissingDependencyError)), None)
    if missing:
        raise missing
    told = dict.fromkeys(map(str, errors))  # one for all precisions is told once
    raise InputError(f"{' '.join(told)} Or use --runtime auto --device auto.")


def opened_if_it_agrees(candidate: Candidate, folder: Path, card: Card) -> Runtime:
    """The candidate, ready.

    Raises:
        UnsuitableError: its masks are not those of torch in float32, or it cannot serve the model here, be it for want
            of memory.
    """
    from . import agreement

    key = agreement.memory_key(card, name=candidate.name, device=candidate.device, precision=candidate.precision)
    known = agreement.remembered(key)
    if known and not known.is_enough:
        raise _disagrees(candidate, known.dice)
    try:
        opened = candidate.open(folder, card)
        if known or candidate.is_the_measure:
            return opened
        known = agreement.measure_agreement(opened, folder, card)
        agreement.remember(key, known)
    except (TeachFormerError, UnsuitableError, ModuleNotFoundError):
        raise
    except Exception as error:  # whatever a library raises for a file or device that it cannot serve
        raise UnsuitableError(f"{candidate} failed ({' '.join(str(error).split())[:200]}).") from error
    if not known.is_enough:
        raise _disagrees(candidate, known.dice)
    return opened


def _disagrees(candidate: Candidate, dice: float) -> UnsuitableError:
    from .agreement import ENOUGH

    return UnsuitableError(
        f"{candidate} gives masks that agree with those of torch fp32 at Dice {dice:.4f} only, {ENOUGH} is asked for."
    )


def candidates(card: Card, *, device: str = "auto", runtime: str = "auto") -> Iterator[Candidate]:
    """What might serve, fastest first; by the seconds measured here where ``teachformer bench`` has done so.

    Raises:
        InputError: the device is unknown or does not work here.
    """
    from . import agreement

    for place in _places(device):
        kind = place.partition(":")[0]
        table = {"cpu": EXPECTED_SECONDS, "intel": ON_INTEL_GPU}.get(kind, ON_GPU)
        found = [
            Candidate(name=name, device=place, precision=precision, expected_seconds=seconds)
            for (name, precision), seconds in table.items()
            if runtime in ("auto", name)
        ]
        measured = {}
        for one in found:
            key = agreement.memory_key(card, name=one.name, device=one.device, precision=one.precision)
            measured[one] = agreement.remembered(key)
        # Only the bench asks the measure itself, after all others.
        if any(one.is_the_measure and known for one, known in measured.items()):
            yield from sorted(found, key=lambda one: known.seconds if (known := measured[one]) else float("inf"))
        else:
            yield from sorted(found, key=lambda one: one.expected_seconds)


def _places(device: str) -> Iterator[str]:
    """The devices to try, best first; a GPU only where a small operation ran on it."""
    if device != "auto":
        yield device
        return
    if gpu_is_possible():
        gpu = str(choose_device("auto"))
        if gpu != "cpu":
            yield gpu
    yield "cpu"
