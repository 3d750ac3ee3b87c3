"""A network as a graph that OpenVINO or ONNX Runtime computes without PyTorch."""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..networks import SegmentationNetwork
from .card import Card
from .model_folder import WEIGHTS_FILE, load_network, read_card, write_model
from .runtimes import onnx_runtime, openvino_runtime
from .runtimes.agreement import REFERENCE, make_reference
from .runtimes.torch_runtime import TorchRuntime

OUTPUTS = ("logits", "coarse", "fine")
OPSET = 17  # the first with layer normalisation


class _WithAttention(nn.Module):
    """The forward that a graph holds: image ``(B, M, *image_size)`` -> logits, coarse P, fine Q."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.network.forward_with_attention(image)


def write_graphs(model: Path, card: Card, runtimes: Sequence[str], folder: Path) -> dict[str, Path]:
    """Writes the graphs of a model folder's network, and the answer of PyTorch that runtimes are measured against.

    Graphs take any number of windows of the card's ``image_size`` as ``image`` and return ``logits``, ``coarse`` and
    ``fine``, all float32; weights are those of the model, unrounded.

    Args:
        model: a model folder.
        card: its card.
        runtimes: openvino, onnx or both.
        folder: existing; the files are written into it.

    Returns:
        Each file by its name in a model folder.

    Raises:
        InputError: a runtime that has no graph.
        MissingDependencyError: what writes a graph is not installed.
    """
    writers = {"openvino": (_write_openvino, openvino_runtime.GRAPH), "onnx": (_write_onnx, onnx_runtime.GRAPH)}
    unknown = [name for name in runtimes if name not in writers]
    if unknown:
        raise InputError(f"There is no graph for '{unknown[0]}': use --runtime {','.join(writers)}, or one of them.")
    network = load_network(model, card)
    window = torch.zeros(1, len(card["channels"]), *card["image_size"])
    for name in runtimes:
        write, graph = writers[name]
        (folder / graph).parent.mkdir(exist_ok=True)
        with _quietly():
            write(_WithAttention(network).eval(), window, folder / graph)
    from safetensors.numpy import save_file

    plain = TorchRuntime(network=network, device="cpu", precision="fp32", bytes_per_voxel=0)
    save_file(make_reference(plain, card), folder / REFERENCE)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in files}


def copy_with_graphs(model: Path, runtimes: Sequence[str], folder: Path, *, name: str | None = None) -> Path:
    """Makes a copy of a model folder that also holds graphs.

    Args:
        model: a model folder, left as it is.
        runtimes: openvino, onnx or both.
        folder: to make.
        name: of the copy; the model's unless given.

    Raises:
        InputError: as `write_graphs`; the folder exists and is not a model folder.
        MissingDependencyError: as `write_graphs`.
    """
    card = read_card(model)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = write_graphs(model, card, runtimes, Path(scratch))
        there = {file: model / file for file in card["files"] if file != WEIGHTS_FILE}
        card = card | {"name": name or card["name"]}
        write_model(folder, card, model / WEIGHTS_FILE, more={**there, **graphs})
    return folder


def _write_openvino(module: nn.Module, window: Tensor, file: Path) -> None:
    openvino = openvino_runtime.import_openvino()
    graph = openvino.convert_model(module, example_input=window, input=[-1, *window.shape[1:]])
    graph.inputs[0].get_tensor().set_names({"image"})
    for output, name in zip(graph.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(graph, str(file), compress_to_fp16=False)


def _write_onnx(module: nn.Module, window: Tensor, file: Path) -> None:
    try:
        import onnx  # noqa: F401  # PyTorch writes the file by itself, but checks it with this
    except ImportError as error:
        from ..errors import missing_dependency

        raise missing_dependency("onnx", extra="onnx", purpose="export for ONNX Runtime") from error
    torch.onnx.export(
        module,
        (window,),
        str(file),
        input_names=["image"],
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "batch"} for name in ("image", *OUTPUTS)},
        opset_version=OPSET,
        dynamo=False,  # the other exporter needs onnxscript, and fixes the batch's size
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the remarks on sizes that become constants: a graph's window is fixed on purpose."""
    with warnings.catch_warnings(), torch.inference_mode(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
