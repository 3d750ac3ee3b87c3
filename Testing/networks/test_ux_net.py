"""3D UX-Net: its norm and its blocks, against their definitions."""

import torch
from small_networks import small_network

from TeachFormerCore.networks.ux_net import ChannelNorm, LargeKernelBlock


def test_channel_norm_by_hand() -> None:
    norm = ChannelNorm(2)
    norm.weight.data = torch.tensor([1.0, 3.0])
    norm.bias.data = torch.tensor([0.0, 5.0])
    x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    y = norm(x)  # mean 2, standard deviation 1 over the channels
    assert torch.allclose(y[0, 0], torch.full((2, 2), -1.0), atol=1e-5)
    assert torch.allclose(y[0, 1], torch.full((2, 2), 8.0), atol=1e-5)


def test_channels_stay_apart_after_the_norm() -> None:
    torch.manual_seed(0)
    block = LargeKernelBlock(3, 4)
    y = torch.randn(1, 4, 3, 3, 3, requires_grad=True)
    out = block.contract(torch.nn.functional.gelu(block.expand(y)))
    out[0, 2].sum().backward()
    assert y.grad[0, 2].all()
    assert not y.grad[0, [0, 1, 3]].any()


def test_a_block_starts_as_the_identity() -> None:
    block = LargeKernelBlock(3, 4)
    x = torch.randn(1, 4, 8, 8, 8)
    assert (block(x) - x).abs().max() < 1e-4
    assert not torch.equal(block(x), x)
    assert (small_network("ux_net", 2).stages[0][0].scale == 1e-6).all()
