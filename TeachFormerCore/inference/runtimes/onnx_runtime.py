"""ONNX Runtime: runs everywhere, on whatever providers it offers; needs ``model.onnx``, and no PyTorch."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import missing_dependency
from ..card import Card
from .interface import GraphRuntime, UnsuitableError

GRAPH = "model.onnx"
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "mps": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
# About this many maps of the size of the finest one at a time (S1: 14).
MAPS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class ONNXRuntime(GraphRuntime):
    """A session; see `Runtime`."""

    session: Any
    device: str
    precision: str
    bytes_per_voxel: int
    name: str = "onnx"

    def __call__(self, windows: np.ndarray) -> tuple[Any, Any, Any]:
        """Logits, coarse P and fine Q."""
        logits, coarse, fine = self.session.run(["logits", "coarse", "fine"], {"image": windows})
        return logits, coarse, fine


def open_runtime(folder: Path, card: Card, device: str, precision: str) -> ONNXRuntime:
    """The graph of a model folder in a session on ``cpu``, ``cuda``, ``mps`` (CoreML) or ``directml``.

    Raises:
        UnsuitableError: the folder has no such graph, or ONNX Runtime has no provider for the device or precision here.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    if GRAPH not in card["files"]:
        raise UnsuitableError(
            f"The model {folder} has no ONNX graph: make a copy that has one with "
            f"'teachformer export --model {folder} --runtime onnx'."
        )
    if precision != "fp32":
        raise UnsuitableError("ONNX Runtime computes the graph as it is, in fp32.")
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_dependency("onnxruntime", extra="onnx", purpose="compute with ONNX Runtime") from error
    kind, _, number = device.partition(":")
    provider = PROVIDERS.get(kind)
    offered = onnxruntime.get_available_providers()
    if provider not in offered:
        raise UnsuitableError(f"ONNX Runtime has no provider for {device} here, only {', '.join(offered)}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: one per core
    options.log_severity_level = 3  # its warnings go past Python's streams
    chosen: Any = (provider, {"device_id": int(number)}) if number else provider
    session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=[chosen])
    if session.get_providers()[0] != provider:  # it goes on without a word where the driver is not usable
        raise UnsuitableError(f"ONNX Runtime could not use {device} here.")
    channels = session.get_outputs()[2].shape[1]
    return ONNXRuntime(
        session=session, device=device, precision=precision, bytes_per_voxel=MAPS_AT_ONCE * int(channels) * 4
    )
