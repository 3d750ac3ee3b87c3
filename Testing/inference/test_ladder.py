"""When memory runs out, the next rung serves and says so; on the last one the error has exit code 4."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from TeachFormerCore.data.image import voxels
from TeachFormerCore.data.phantom import thigh_phantom
from TeachFormerCore.errors import TeachFormerError
from TeachFormerCore.inference.ladder import down_the_ladder, is_out_of_memory
from TeachFormerCore.inference.predictor import Predictor
from TeachFormerCore.inference.runtimes.interface import GraphRuntime, Rung, smaller_window
from TeachFormerCore.inference.runtimes.torch_runtime import TorchRuntime
from TeachFormerCore.networks import build_network

OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("Exception from src/core: std::bad_alloc"),
    Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 8"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_every_library_s_way_to_say_it_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def broken(rung: Rung) -> None:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        down_the_ladder(rungs("cuda:0"), broken)


def rungs(device: str) -> list[Rung]:
    network = build_network(
        "h_denseformer_light", in_channels=1, out_channels=2, image_size=(64,) * 3, filters=2, transformer_depth=4
    ).eval()
    return TorchRuntime(network=network, device=device, precision="fp32", bytes_per_voxel=100).rungs((64, 64, 64))


def test_a_gpu_s_rungs_need_less_and_less_of_it() -> None:
    ways = [(one.runtime.device, one.keeps, one.window, one.batch) for one in rungs("cuda:0")]
    assert ways == [
        ("cuda:0", "cuda:0", (64,) * 3, 2),
        ("cuda:0", "cpu", (64,) * 3, 1),
        ("cuda:0", "cpu", (32,) * 3, 1),
    ]


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("error", OUT_OF_MEMORY[:2], ids=lambda error: type(error).__name__)
def test_each_rung_is_followed_by_the_next(failing: int, error: Exception) -> None:
    tried: list[str] = []

    def attempt(rung: Rung) -> str:
        tried.append(rung.words)
        if len(tried) <= failing:
            raise error
        return rung.words

    result, notice = down_the_ladder(rungs("cuda:0"), attempt)
    words = [one.words for one in rungs("cuda:0")]
    assert tried == words[: failing + 1]
    assert result == words[failing]
    assert notice
    assert notice.startswith(f"The memory did not suffice {words[failing - 1]}: it was computed {words[failing]}")
    assert ("which can change the mask" in notice) == ("smaller windows" in words[failing])


def test_on_the_last_rung_it_is_an_error_of_exit_code_4() -> None:
    def attempt(rung: Rung) -> None:
        raise MemoryError

    with pytest.raises(TeachFormerError, match="The memory ran out, also on the last.*smaller region") as caught:
        down_the_ladder(rungs("cpu"), attempt)
    assert caught.value.exit_code == 4


def test_a_rung_is_made_only_when_it_is_needed() -> None:
    def lazily() -> Iterator[Rung]:
        yield from rungs("cpu")
        raise AssertionError("nobody needs this one")

    assert down_the_ladder(lazily(), lambda rung: 7) == (7, None)


def test_what_does_not_fit_is_passed_over_but_for_the_last() -> None:
    tried: list[str] = []

    def attempt(rung: Rung) -> int:
        tried.append(rung.words)
        return 7

    some = rungs("cuda:0")
    _, notice = down_the_ladder(some, attempt, fits=lambda rung: rung.batch == 1)
    assert notice is not None
    assert "did not suffice on cuda:0: it was computed on cuda:0, blended on the CPU." in notice
    down_the_ladder(some, attempt, fits=lambda rung: False)
    assert tried == [some[1].words, some[2].words]


class ScarceGPU(GraphRuntime):
    """A runtime on a device whose memory suffices for nothing."""

    name, device, precision, bytes_per_voxel = "torch", "intel:0", "fp16", 100

    def __call__(self, windows: np.ndarray) -> None:
        raise RuntimeError("[GPU] out of memory")


def test_a_graph_on_a_gpu_without_memory_goes_on_on_the_cpu(tiny_model) -> None:
    images = {name: image[10:60, 10:60, 10:50] for name, image in thigh_phantom().images.items()}
    prediction = Predictor(tiny_model, opened=ScarceGPU()).run(images)
    assert prediction.notices[-1].startswith("The memory did not suffice on intel:0, 1 window at a time: it was ")
    assert prediction.notices[-1].endswith("computed on cpu.")
    expected = Predictor(tiny_model, device="cpu", runtime="torch").run(images)
    assert np.array_equal(voxels(prediction.label), voxels(expected.label))


def test_the_first_rung_leaves_no_notice() -> None:
    assert down_the_ladder(rungs("cpu"), lambda rung: 7) == (7, None)


def test_smaller_windows_are_multiples_and_never_a_single_position() -> None:
    assert smaller_window((144, 96, 48), 16) == (80, 48, 32)
    assert smaller_window((32, 16, 1), 16) == (32, 16, 1)


class Scarce:
    """A network's forward whose memory suffices only for some windows."""

    def __init__(self, forward: Callable, largest: int) -> None:
        self.forward, self.largest = forward, largest
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.sizes.append(tuple(windows.shape))
        if windows.shape[0] * windows.shape[2] > self.largest:
            raise torch.OutOfMemoryError("out of memory")
        return self.forward(windows)


def test_a_case_is_segmented_in_smaller_windows_and_it_is_said(tiny_model, monkeypatch) -> None:
    predictor = Predictor(tiny_model, device="cpu", runtime="torch")
    predictor.window = (64, 32, 32)
    images = {name: image[10:60, 10:60, 10:50] for name, image in thigh_phantom().images.items()}
    plain = predictor.run(images)
    assert plain.notices == ()
    network = predictor.runtime.network
    scarce = Scarce(network.forward_with_attention, largest=32)
    monkeypatch.setattr(network, "forward_with_attention", scarce)
    prediction = predictor.run(images)
    assert scarce.sizes[0][2:] == (64, 32, 32)
    assert scarce.sizes[-1] == (1, 2, 32, 32, 32)
    assert [notice for notice in prediction.notices if "computed on the CPU, in smaller windows" in notice]
    assert prediction.label.GetSize() == images["CT"].GetSize()
    assert np.isfinite(voxels(prediction.uncertainty)).all()
    scarce.largest = 0
    with pytest.raises(TeachFormerError, match="memory ran out"):
        predictor.run(images)


def test_where_the_plan_says_it_cannot_fit_it_is_not_tried(tiny_model, monkeypatch) -> None:
    predictor = Predictor(tiny_model, device="cpu", runtime="torch")
    predictor.window = (64, 32, 32)
    images = {name: image[10:60, 10:60, 10:50] for name, image in thigh_phantom().images.items()}
    plans = []
    predictor.run(images, on_plan=plans.append)
    needed = plans[0].needs()["cpu"]
    monkeypatch.setattr("TeachFormerCore.inference.memory_plan.free_memory", lambda device: needed)  # 0.9 of it is used
    scarce = Scarce(predictor.runtime.network.forward_with_attention, largest=1000)
    monkeypatch.setattr(predictor.runtime.network, "forward_with_attention", scarce)
    prediction = predictor.run(images)
    assert {size[2:] for size in scarce.sizes} == {(32, 32, 32)}
    assert "The memory did not suffice on cpu" in prediction.notices[-1]
