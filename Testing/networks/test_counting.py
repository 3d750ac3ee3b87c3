"""The two counters, on networks small enough to count by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from TeachFormerCore.networks import SegmentationNetwork
from TeachFormerCore.networks.counting import count_parameters, measure
from TeachFormerCore.networks.layers import SoftmaxAttention


class Fake(SegmentationNetwork):
    """One layer applied to a flat 32 x 32 image."""

    def __init__(self, layer: nn.Module, *, channels: int) -> None:
        super().__init__(in_channels=channels, out_channels=2, spatial_dims=2, image_size=(32, 32))
        self.layer = layer

    def maps(self, image: Tensor, *, training_terms: bool = False) -> dict[str, Any]:
        x = self.layer(image)
        return {"logits": x, "coarse": x, "fine": x}


class Tokens(nn.Module):
    """Applies a layer to the 1024 pixels of an image as tokens."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (32, 32))


class Attention(nn.Module):
    """Attends from 1024 tokens to the first 16 of them, in 2 heads of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = SoftmaxAttention()

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (2, 2)).transpose(1, 2)
        bias = torch.zeros(1, 1, 1024, 16, device=x.device)
        return self.attend(heads, heads[:, :, :16], heads[:, :, :16], bias).transpose(1, 2).flatten(2)


class Twice(nn.Module):
    """A convolution mounted in two places, and called from both."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(4, 4, 1)
        self.first = nn.Sequential(shared, nn.ReLU())
        self.second = nn.Sequential(shared, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


PIXELS = 32 * 32
CASES = {
    # layer: (honest MACs, parameters and operations by the rule of Table 1)
    "convolution": (nn.Conv2d(4, 6, 3, padding=1), PIXELS * 6 * 4 * 9, 4 * 6 * 9 + 6, PIXELS * 6 * 4 * 9),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1), PIXELS // 4 * 216, 222, PIXELS // 4 * 216),
    "grouped": (nn.Conv2d(4, 8, 3, padding=1, groups=4), PIXELS * 8 * 9, 80, PIXELS * 8 * 9),
    "transposed": (nn.ConvTranspose2d(4, 6, 2, stride=2), PIXELS * 4 * 6 * 4, 102, 4 * PIXELS * 6 * 4 * 4),
    "linear": (Tokens(nn.Linear(4, 5)), PIXELS * 20, 25, PIXELS * 20),
    "layer norm": (Tokens(nn.LayerNorm(4)), 0, 8, 4 * 4 * PIXELS),
    "instance norm": (nn.InstanceNorm2d(4), 0, 0, 2 * 4 * PIXELS),
    "affine instance norm": (nn.InstanceNorm2d(4, affine=True), 0, 8, 4 * 4 * PIXELS),
    "batch norm": (nn.BatchNorm2d(4), 0, 8, 4 * 4 * PIXELS),
    "group norm": (nn.GroupNorm(2, 4), 0, 0, 0),
    "softmax": (nn.Softmax(1), 0, 0, PIXELS * (3 * 4 - 1)),
    "attention": (Tokens(Attention()), 2 * 2 * PIXELS * 16 * 2, 0, 2 * PIXELS * (3 * 16 - 1)),
    "shared": (Twice(), 2 * PIXELS * 16, 2 * 20, 4 * 2 * PIXELS * 16),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("case", CASES)
def test_counts_by_hand(case: str, device: str) -> None:
    layer, macs, parameters, operations = CASES[case]
    counts = measure(Fake(layer, channels=4).to(device), torch.empty(1, 4, 32, 32, device=device))
    assert (counts.macs, counts.table1_parameters, counts.table1_operations) == (macs, parameters, operations)


def test_all_parameters_count_each_once() -> None:
    network = Fake(Twice(), channels=4)
    network.bare = nn.Parameter(torch.zeros(7))
    assert count_parameters(network) == 20 + 7


def test_measuring_leaves_no_trace() -> None:
    network = Fake(nn.BatchNorm2d(4), channels=4).train()
    measure(network, torch.randn(1, 4, 32, 32))
    assert network.training
    assert network.layer.num_batches_tracked == 0
    assert not any(module._forward_hooks for module in network.modules())
