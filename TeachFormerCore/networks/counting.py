"""How large a network is and how much it computes: the honest count, and the one that the paper's Table 1 uses.

The honest count takes every parameter, and the multiply-accumulates (MACs) of the convolutions and matrix products
that really run, attention included (``torch.utils.flop_counter``; a MAC is two FLOPs).

Teach-Former's "GFLOPs" and "Param" are what a popular per-module profiler (thop 0.1.1) reports. Its rule, reproduced
here so that our networks can be held against the published figures:

- a module counts when it ran and is a convolution, linear layer, layer, batch or instance norm, or softmax; what a
  network computes outside such modules (matrix products of the attention, interpolation) is free;
- convolution: output elements x input channels per group x kernel size. **Transposed convolutions too**, which
  overstates them stride^dims times;
- linear: output elements x input features; norm: 2 x input elements, doubled where it has weights; softmax over n:
  (3n - 1) / n x elements; nothing for biases;
- parameters: those of the counted modules; bare ones, such as position embeddings, are left out;
- a module mounted in m places counts its parameters m times and its operations m * m times, as the profiler hooks
  and adds it once per place (MDViT's position convolutions are mounted in 3).

Everything works on the meta device too, without memory or arithmetic.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .base import SegmentationNetwork
from .layers import SoftmaxAttention


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The size of a network and the cost of one evaluation.

    Attributes:
        parameters: all of them.
        flops: floating-point operations of convolutions and matrix products, twice the MACs.
        table1_parameters: by the rule of Table 1.
        table1_operations: by the rule of Table 1, which calls 10^9 of them a GFLOP.
        coarse_shape: of the coarse map P, without the batch.
        fine_shape: of the fine map Q, without the batch.
    """

    parameters: int
    flops: int
    table1_parameters: int
    table1_operations: int
    coarse_shape: tuple[int, ...]
    fine_shape: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.flops // 2


def count_parameters(module: nn.Module) -> int:
    """All parameters of a module, each once."""
    return sum(parameter.numel() for parameter in module.parameters())


def measure(network: SegmentationNetwork, image: Tensor) -> Counts:
    """Counts one evaluation, with the training terms the network returns then, such as auxiliary heads.

    Args:
        network: on the image's device, which may be ``meta``.
        image: ``(1, M, *S)``.
    """
    was_training = network.training
    network.eval()
    try:
        with (
            torch.no_grad(),
            _RememberedShapes() if image.is_meta else nullcontext(),
            _table1_hooks(network) as operations,
            FlopCounterMode(display=False) as counter,
        ):
            maps = network.training_forward(image)
    finally:
        network.train(was_training)
    places = Counter(_mounted(network))
    return Counts(
        parameters=count_parameters(network),
        flops=counter.get_total_flops(),
        table1_parameters=sum(places[module] * count_parameters(module) for module in operations),
        table1_operations=sum(places[module] ** 2 * count for module, count in operations.items()),
        coarse_shape=tuple(maps["coarse"].shape[1:]),
        fine_shape=tuple(maps["fine"].shape[1:]),
    )


class _RememberedShapes(TorchDispatchMode):
    """On the meta device an operation's outcome is a shape, worked out slowly; here only once for the same inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[Any, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            return func(*args, **kwargs)
        key = (func, _described(args), _described(tuple(kwargs.items())))
        if key not in self.outcomes:
            outcome = func(*args, **kwargs)
            self.outcomes[key] = _described(outcome)
            return outcome
        return _made(self.outcomes[key])


class _Description(NamedTuple):
    """What a tensor on the meta device is."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def _described(value: Any) -> Any:
    """A value with its tensors replaced by descriptions, and hashable."""
    if isinstance(value, Tensor):
        return _Description(tuple(value.shape), value.stride(), value.dtype)
    return tuple(map(_described, value)) if isinstance(value, (list, tuple)) else value


def _made(description: Any) -> Any:
    if isinstance(description, _Description):
        return torch.empty_strided(description.shape, description.stride, dtype=description.dtype, device="meta")
    return tuple(map(_made, description)) if isinstance(description, tuple) else description


@contextmanager
def _table1_hooks(network: nn.Module) -> Iterator[dict[nn.Module, int]]:
    """Collects the operations of each module that Table 1 counts, while it is open."""
    operations: dict[nn.Module, int] = {}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rule = next(rule for types, rule in _RULES if isinstance(module, types))
        operations[module] = operations.get(module, 0) + rule(module, inputs, output)

    counted = tuple(single for types, _ in _RULES for single in types)
    handles = [module.register_forward_hook(hook) for module in network.modules() if isinstance(module, counted)]
    try:
        yield operations
    finally:
        for handle in handles:
            handle.remove()


def _mounted(module: nn.Module) -> Iterator[nn.Module]:
    """The module and all below it, a shared one once for each parent."""
    yield module
    for child in module.children():
        yield from _mounted(child)


def _convolution(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    return output.numel() * (module.in_channels // module.groups) * module.weight[0, 0].numel()


def _linear(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    return output.numel() * module.in_features


def _norm(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    return inputs[0].numel() * (2 if next(module.parameters(), None) is None else 4)


def _softmax(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    return _softmax_operations(output.numel(), output.shape[module.dim])


def _attention(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    query, key = inputs[0], inputs[1]
    return _softmax_operations(query[..., 0].numel() * key.shape[-2], key.shape[-2])


def _softmax_operations(elements: int, length: int) -> int:
    return elements // length * (3 * length - 1)


_RULES: tuple[tuple[tuple[type[nn.Module], ...], Callable[[Any, tuple[Tensor, ...], Tensor], int]], ...] = (
    ((_ConvNd,), _convolution),
    ((nn.Linear,), _linear),
    ((nn.LayerNorm, _BatchNorm, _InstanceNorm), _norm),
    ((nn.Softmax,), _softmax),
    ((SoftmaxAttention,), _attention),
)
