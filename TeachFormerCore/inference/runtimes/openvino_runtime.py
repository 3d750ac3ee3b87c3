"""OpenVINO: the fastest on processors; needs its graph or ONNX's in the model folder, and no PyTorch."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import missing_dependency
from ...files import sha256_of, write_whole
from ...paths import user_cache_folder
from ..card import Card
from .interface import GraphRuntime, UnsuitableError
from .onnx_runtime import GRAPH as ONNX_GRAPH

GRAPH = "openvino/model.xml"
BLOBS, HASHES = "*.blob", "sha256.json"  # in a cache: compiled graphs, and the hash of each
# About this many maps of the size of the finest one at a time (S1: 4 in float32).
MAPS_AT_ONCE = 6
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


def import_openvino() -> Any:
    """The package, without its telemetry, which would report to its makers.

    Raises:
        MissingDependencyError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails now
    try:
        import openvino
    except ImportError as error:
        raise missing_dependency("openvino", extra="openvino", purpose="compute with OpenVINO") from error
    return openvino


@dataclass(frozen=True, kw_only=True)
class OpenVINORuntime(GraphRuntime):
    """A compiled graph; see `Runtime`."""

    request: Any
    device: str
    precision: str
    bytes_per_voxel: int
    name: str = "openvino"

    def __call__(self, windows: np.ndarray) -> tuple[Any, Any, Any]:
        """Logits, coarse P and fine Q, valid until the next call."""
        self.request.infer({0: windows}, share_inputs=True)
        logits, coarse, fine = (self.request.get_output_tensor(number).data for number in range(3))
        return logits, coarse, fine


def open_runtime(folder: Path, card: Card, device: str, precision: str) -> OpenVINORuntime:
    """The graph of a model folder, compiled for ``cpu`` or an Intel GPU (``intel``, ``intel:N``).

    What was compiled is kept in the user's cache folder, which makes the next start a second shorter.

    Raises:
        UnsuitableError: the folder has no such graph, or the device is not one of OpenVINO's or lacks the precision.
        MissingDependencyError: OpenVINO is not installed.
    """
    graph = graph_of(card)
    if graph is None:
        raise UnsuitableError(
            f"The model {folder} has no OpenVINO graph: make a copy that has one with "
            f"'teachformer export --model {folder} --runtime openvino'."
        )
    openvino = import_openvino()
    core = openvino.Core()
    kind, _, number = device.partition(":")
    place = {"cpu": "CPU", "intel": f"GPU.{number or 0}"}.get(kind)
    offered = core.available_devices
    if place is None or not (place in offered or (place == "GPU.0" and "GPU" in offered)):
        raise UnsuitableError(f"OpenVINO does not offer {device} here, only {', '.join(offered)}.")
    if CAPABILITIES[precision] not in core.get_property(place, "OPTIMIZATION_CAPABILITIES"):
        raise UnsuitableError(f"{device} has no native {precision}.")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if place == "CPU" and (threads := os.environ.get("OMP_NUM_THREADS")):
        settings["INFERENCE_NUM_THREADS"] = int(threads)  # else one per physical core
    cache = user_cache_folder() / "openvino" / card["files"][graph][:16]
    compiled = _compile(core, folder / graph, place, settings, cache)
    channels = compiled.outputs[2].get_partial_shape()[1].get_length()
    bytes_of_value = 2 if precision != "fp32" else 4
    return OpenVINORuntime(
        request=compiled.create_infer_request(),
        device=device,
        precision=precision,
        bytes_per_voxel=MAPS_AT_ONCE * channels * bytes_of_value,
    )


def graph_of(card: Card) -> str | None:
    """The file of a model folder that OpenVINO computes; it reads ONNX's graph as well as its own."""
    return next((name for name in (GRAPH, ONNX_GRAPH) if name in card["files"]), None)


def _compile(core: Any, graph: Path, place: str, settings: dict[str, Any], cache: Path) -> Any:
    """The graph, compiled now or taken from its cache, which is trusted only as far as its hashes are right.

    OpenVINO knows a graph by its name, size and time, and notices a blob that was cut, but none that was changed.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        known = _hashes(cache)
        if known != _noted_hashes(cache):
            for blob in cache.glob(BLOBS):
                blob.unlink()
            known = {}
        compiled = core.compile_model(str(graph), place, {**settings, "CACHE_DIR": str(cache)})
        if {blob.name for blob in cache.glob(BLOBS)} != known.keys():
            write_whole(cache / HASHES, json.dumps(_hashes(cache)))
    except (OSError, RuntimeError):  # a folder that cannot be written, or a cache that was damaged
        return core.compile_model(str(graph), place, settings)
    return compiled


def _hashes(cache: Path) -> dict[str, str]:
    return {blob.name: sha256_of(blob) for blob in sorted(cache.glob(BLOBS))}


def _noted_hashes(cache: Path) -> Any:
    try:
        return json.loads((cache / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
